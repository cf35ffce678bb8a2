"""The miniature Wan through all seven stages, as a user drives it, and its student read back by diffusers."""

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from filmstill.models.weights import load_model
from filmstill.runtime.files import sha256_of
from filmstill.runtime.tensor_files import load_tensors
from filmstill.training.pairs import Pairs
from filmstill.work.graph import Inputs, inputs
from goldens import assert_close, swap
from mini_wan import write_mini
from repository import clone, dvc, run
from tiny_umt5 import WAN_FILE

STAGES = ("prompts", "teacher", "ode_pairs", "ode_init", "distill", "samples", "evaluate")
ARMS = ("teacher", "undistilled", "init", "student")


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("mini") / "wan", "wan-mini")
    released = folder / "data/released/wan-mini"
    write_mini(released)
    for name in (
        ".cache/huggingface/download/x.metadata",
        "assets/x",
        "assets.zip",
    ):  # what `hf download` leaves, and more
        (released / name).parent.mkdir(parents=True, exist_ok=True)
        (released / name).write_text(name)
    ran = dvc(folder, "repro").stdout
    assert [line.split("'")[1] for line in ran.splitlines() if line.startswith("Running stage")] == list(STAGES)
    return folder


def test_it_is_whole_and_done(mini: Path):
    said = dvc(mini, "repro").stdout
    assert "up to date" in said and "Running stage" not in said
    metrics = json.loads((mini / "data/evaluate/metrics.json").read_text())
    assert all(metrics[arm]["frames_per_second"] > 0 for arm in ARMS) and "real" not in metrics
    assert metrics["clips"] == 6 and metrics["failed_clips"] == 0
    assert len(metrics["student"]["drift_of"]["motion"]) == 2  # 12 latent frames, windows of 6
    assert 0 < metrics["student"]["network_seconds_per_clip"] < metrics["student"]["seconds_per_clip"]
    said = run("python", "-m", "filmstill", "results", cwd=mini).stdout
    assert "pixel statistics, 6 clips per arm" in said and "frames" in said and "real" not in said
    page = (mini / "data/evaluate/report.html").read_text()
    assert "Drift" in page and page.count("data:image/") == 3


def test_every_released_file_is_recorded(mini: Path):
    released = mini / "data/released/wan-mini"
    recorded = load_model(mini / "data/teacher/teacher.safetensors")[1]["released"]
    read = {WAN_FILE, "Wan2.1_VAE.pth", "config.json", "diffusion_pytorch_model.safetensors", "taew2_1.pth"}
    assert set(recorded) == {*read, "google/umt5-xxl/tokenizer.json"}
    for name, facts in recorded.items():
        assert facts == {"bytes": (released / name).stat().st_size, "sha256": sha256_of(released / name)}


def test_a_release_is_named_as_dvc_names_it(mini: Path, monkeypatch: pytest.MonkeyPatch):
    """Else prune would throw the work of an import away; a download's notes and their times are no part of it."""
    monkeypatch.chdir(mini)
    locked = OmegaConf.to_container(OmegaConf.load("dvc.lock"))["stages"]["teacher"]
    assert inputs("teacher") == Inputs.of_lock(locked)
    (mini / "data/released/wan-mini/.cache/huggingface/download/y.metadata").write_text("another download")
    assert inputs("teacher") == Inputs.of_lock(locked)


def test_pairs_stand_on_the_students_nodes(mini: Path):
    pairs = Pairs.load(mini / "data/ode_pairs")
    assert pairs.shape == (6, 16, 4, 6) and len(pairs.prompts) == 6
    assert (1000 * pairs.sigmas).tolist() == pytest.approx([1000, 937.5, 2500 / 3, 625, 0])


def test_clips_have_wans_frames(mini: Path):
    manifest = pd.read_parquet(mini / "data/samples/manifest.parquet")
    assert set(manifest["arm"]) == {*ARMS, "student_long"}
    frames = {arm: len(iio.imread(mini / "data/samples" / rows["video"].iloc[0], plugin="pyav"))
              for arm, rows in manifest.groupby("arm")}  # fmt: skip
    assert frames == {**dict.fromkeys(ARMS, 21), "student_long": 45}
    assert load_tensors(mini / "data/samples/latents/student-0000.safetensors")[0]["latents"].shape == (6, 6, 16, 4, 6)


@pytest.mark.parametrize("extra", [(), ("--fast",)], ids=["vae", "taehv"])
def test_the_student_streams(mini: Path, tmp_path: Path, extra: tuple[str, ...]):
    words = ("a red three bobs", "--frames", "9", "--out", str(tmp_path / "a.mp4"), *extra)
    assert "first block after" in run("python", "-m", "filmstill", "generate", *words, cwd=mini).stdout
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (33, 128, 192, 3)


def test_a_released_student_is_run_as_the_profile_rolls_out(mini: Path, tmp_path: Path):
    """There and back through the layout of Self-Forcing's checkpoints, which say nothing of a rollout."""
    student, there, back = (
        mini / "data/distill/student.safetensors",
        tmp_path / "sf.pt",
        tmp_path / "back.safetensors",
    )
    python = ("python", "-m", "filmstill")
    run(*python, "convert", str(student), str(there), "--to", "self-forcing", cwd=mini)
    run(*python, "convert", str(there), str(back), "--to", "filmstill", "--heads", "4", "--student", cwd=mini)
    assert back.read_bytes() == student.read_bytes()
    shutil.copytree(mini / "params", tmp_path / "params")
    run(*python, "profile", "wan-1.3b", cwd=tmp_path)
    words = (str(there), str(tmp_path / "other.safetensors"), "--to", "filmstill", "--heads", "4", "--student")
    said = run(*python, "convert", *words, cwd=tmp_path, check=False)
    assert said.returncode == 2 and "dim 48 (params.yaml: 1536)" in said.stderr


@torch.no_grad()
def test_the_student_is_read_back_by_diffusers(mini: Path, tmp_path: Path):
    from diffusers import WanTransformer3DModel

    student = mini / "data/distill/student.safetensors"
    words = ("convert", str(student), str(tmp_path / "export"), "--to", "diffusers")
    assert "diffusers, from filmstill; dim 48" in run("python", "-m", "filmstill", *words, cwd=mini).stdout
    ours, _ = load_model(student)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "export")
    dice = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 3, 16, 4, 6, generator=dice), torch.randn(1, 24, 32, generator=dice)
    t = torch.tensor([625.0])
    assert_close(swap(ours(x, t, ours.read_text(text))), theirs(swap(x), t, text, return_dict=False)[0], 2e-5)
