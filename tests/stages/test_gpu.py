"""The miniature Wan through all seven stages on a GPU, by a user's commands."""

import json
import re
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import pytest
from test_wan_mini import ARMS, FILMSTILL, STAGES

from mini_wan import CONFIG, write_mini
from repository import clone, commit, dvc, run

pytestmark = pytest.mark.gpu

HEADS = 3  # of 16 channels: the smallest that FlexAttention takes


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("gpu") / "wan")
    on_gpu = (f"model.num_heads={HEADS}", "compute.device=cuda", "compute.precision=bfloat16")
    run(*FILMSTILL, "profile", "wan-mini", *on_gpu, cwd=folder)
    released = folder / "data/released/wan-mini"
    write_mini(released, config=replace(CONFIG, num_heads=HEADS))
    commit(folder, "on a GPU")
    assert re.findall(r"(?m)^Running stage '(\w+)':$", dvc(folder, "repro").stdout) == list(STAGES)
    return folder


def test_every_arm_is_evaluated_and_nothing_is_left_to_do(mini: Path):
    metrics = json.loads((mini / "data/evaluate/metrics.json").read_text())
    assert all(metrics[arm]["frames_per_second"] > 0 for arm in ARMS) and metrics["failed_clips"] == 0
    assert dvc(mini, "status").stdout.strip() == "Data and pipelines are up to date."


def test_the_student_streams_as_on_a_cpu(mini: Path):
    clips = []
    for device in ("cuda", "cpu"):
        words = ("a red star bobs", "--frames", "9", "--device", device, "--out", f"{device}.mp4")
        run(*FILMSTILL, "generate", *words, cwd=mini)
        clips.append(iio.imread(mini / f"{device}.mp4", plugin="pyav").astype(float))
    assert clips[0].shape == clips[1].shape == (33, 128, 192, 3)
    assert abs(clips[0] - clips[1]).mean() < 8  # of 255: bfloat16 beside float32
