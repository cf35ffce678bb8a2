"""The whole graph on a GPU, by a user's commands."""

import json
import re
from pathlib import Path

import imageio.v3 as iio
import pytest
from omegaconf import OmegaConf
from test_pipeline import ARMS, STAGES

from repository import clone, commit, dvc, run

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("gpu") / "smoke")
    params = OmegaConf.load(folder / "params.yaml")
    params.compute.update({"device": "cuda", "precision": "bfloat16"})
    params.model.num_heads = 3  # heads of 16: the smallest that FlexAttention takes
    OmegaConf.save(params, folder / "params.yaml")
    commit(folder, "compute on a GPU")
    assert re.findall(r"(?m)^Running stage '(\w+)':$", dvc(folder, "repro").stdout) == list(STAGES)
    return folder


def test_every_arm_is_evaluated_and_nothing_is_left_to_do(on_gpu: Path):
    metrics = json.loads((on_gpu / "data/evaluate/metrics.json").read_text())
    assert all(metrics[arm]["seconds_per_clip"] >= 0 for arm in ARMS)
    assert metrics["real"]["all_attributes"] == 1
    assert dvc(on_gpu, "status").stdout.strip() == "Data and pipelines are up to date."


def test_the_student_streams_on_a_gpu_and_on_a_cpu(on_gpu: Path):
    clips = []
    for device in ("cuda", "cpu"):
        words = ("python", "-m", "filmstill", "generate", "a red three bobs up and down", "--device", device)
        run(*words, "--out", f"{device}.mp4", cwd=on_gpu)
        clips.append(iio.imread(on_gpu / f"{device}.mp4").astype(float))
    assert clips[0].shape == clips[1].shape
    assert abs(clips[0] - clips[1]).mean() < 16  # of 255: bfloat16 beside float32
