"""The miniature Wan through all stages, by a user's commands; its student in other layouts."""

import json
import re
import shutil
from pathlib import Path

import imageio.v3 as iio
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from filmstill.models.weights import load_model
from filmstill.params.load import Values
from filmstill.runtime.files import sha256_of
from filmstill.runtime.tensor_files import load_tensors
from filmstill.training.pairs import Pairs
from filmstill.work.graph import Inputs, inputs
from goldens import assert_close, swap
from mini_wan import write_mini
from repository import clone, dvc, run
from stage_runs import refusal
from tiny_umt5 import WAN_FILE

STAGES = ("provided", "prompts", "teacher", "ode_pairs", "ode_init", "distill", "samples", "evaluate")
ARMS = ("teacher", "undistilled", "init", "student")
FILMSTILL = ("python", "-m", "filmstill")
SHOWN = {
    "temporal_flickering": "{:.3f}",
    "motion": "{:.4f}",
    "sharpness": "{:.4f}",
    "evaluations_per_clip": "{:.2f}",
    "seconds_per_clip": "{:.3f}",
    "network_seconds_per_clip": "{:.3f}",
    "frames_per_second": "{:.1f}",
    "first_block_seconds": "{:.3f}",
}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("mini") / "wan", "wan-mini")
    released = folder / "data/released/wan-mini"
    write_mini(released)
    # Files that `hf download` leaves, and files that no stage reads.
    for name in (".cache/huggingface/download/x.metadata", "assets/x", "assets.zip"):
        (released / name).parent.mkdir(parents=True, exist_ok=True)
        (released / name).write_text(name)
    assert re.findall(r"(?m)^Running stage '(\w+)':$", dvc(folder, "repro").stdout) == list(STAGES)
    return folder


def test_a_second_repro_has_nothing_to_do(mini: Path):
    skipped = [f"Stage '{stage}' didn't change, skipping" for stage in STAGES]
    assert dvc(mini, "repro").stdout.splitlines() == [*skipped, "Data and pipelines are up to date."]


def test_metrics_hold_every_arm_and_results_show_them(mini: Path):
    metrics = json.loads((mini / "data/evaluate/metrics.json").read_text())
    assert all(metrics[arm]["frames_per_second"] > 0 for arm in ARMS) and "real" not in metrics
    assert metrics["clips"] == 6 and metrics["failed_clips"] == 0
    student = metrics["student"]
    assert len(metrics["stream"]["by_window"]["motion"]) == 2  # 12 latent frames, windows of 6
    assert 0 < student["network_seconds_per_clip"] < student["seconds_per_clip"]
    lines = run(*FILMSTILL, "results", cwd=mini).stdout.splitlines()
    assert lines[0].rstrip() == "pixel statistics, 6 clips per arm"
    (row,) = (line.split() for line in lines if line.startswith(" student "))
    assert row == ["student", *(form.format(student[name]) for name, form in SHOWN.items())]
    assert not any(line.startswith(" real ") for line in lines)


def test_the_page_has_its_sections_and_pictures(mini: Path):
    page = (mini / "data/evaluate/report.html").read_text()
    assert re.findall(r"<h2[^>]*>([^<]+)", page) == ["Side by side", "Long streams", "Student less teacher", "Drift"]
    assert page.count("data:image/") == 4


def test_every_released_file_is_recorded(mini: Path):
    released = mini / "data/released/wan-mini"
    recorded = load_model(mini / "data/teacher/teacher.safetensors")[1]["released"]
    read = {WAN_FILE, "Wan2.1_VAE.pth", "config.json", "diffusion_pytorch_model.safetensors", "taew2_1.pth"}
    assert set(recorded) == {*read, "google/umt5-xxl/tokenizer.json"}
    for name, facts in recorded.items():
        assert facts == {"bytes": (released / name).stat().st_size, "sha256": sha256_of(released / name)}


def test_a_release_is_named_as_dvc_names_it(mini: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise prune would remove the work of an import. What `hf download` notes in .cache is not part of it."""
    monkeypatch.chdir(mini)
    locked = OmegaConf.to_container(OmegaConf.load("dvc.lock"))["stages"]["teacher"]
    assert inputs("teacher", Values.read()) == Inputs.of_lock(locked)
    (mini / "data/released/wan-mini/.cache/huggingface/download/y.metadata").write_text("another download")
    assert inputs("teacher", Values.read()) == Inputs.of_lock(locked)


def test_pairs_have_the_students_sigmas(mini: Path):
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
    words = ("a red star bobs", "--frames", "9", "--out", str(tmp_path / "a.mp4"), *extra)
    line = r"(\S+): 'a red star bobs', seed 0: first block after \d+\.\d{3} s, \d+ frames per second\n"
    assert re.fullmatch(line, run(*FILMSTILL, "generate", *words, cwd=mini).stdout)[1] == str(tmp_path / "a.mp4")
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (33, 128, 192, 3)


def test_a_stream_begins_with_a_picture_of_any_size(mini: Path, tmp_path: Path):
    """The first frame is the picture as VAE and video codec leave it, whatever the prompt."""
    Image.new("L", (90, 301), 200).save(tmp_path / "a.png")
    videos = []
    for number, prompt in enumerate(("a red star bobs", "a blue heart sways")):
        words = (
            "--image",
            str(tmp_path / "a.png"),
            "--fit",
            "pad",
            "--frames",
            "6",
            "--out",
            f"{tmp_path}/{number}.mp4",
        )
        run(*FILMSTILL, "generate", prompt, *words, cwd=mini)
        videos.append(iio.imread(tmp_path / f"{number}.mp4", plugin="pyav").astype(int))
    assert videos[0].shape == (21, 128, 192, 3)
    first, last = (abs(videos[0][frame] - videos[1][frame]).mean() for frame in (0, -1))
    assert first < 2 < last


def test_a_released_student_is_run_as_the_profile_rolls_out(mini: Path, tmp_path: Path):
    """Through Self-Forcing's layout and back. Its checkpoints hold no rollout, so params.yaml gives it."""
    student, exported = mini / "data/distill/student.safetensors", tmp_path / "sf.pt"
    back, other = tmp_path / "back.safetensors", tmp_path / "other.safetensors"
    to_student = ("--to", "filmstill", "--heads", "4", "--student")
    run(*FILMSTILL, "convert", str(student), str(exported), "--to", "self-forcing", cwd=mini)
    run(*FILMSTILL, "convert", str(exported), str(back), *to_student, cwd=mini)
    assert back.read_bytes() == student.read_bytes()
    shutil.copytree(mini / "params", tmp_path / "params")
    shutil.copy(mini / "dvc.yaml", tmp_path)
    run(*FILMSTILL, "profile", "wan-1.3b", cwd=tmp_path)
    refused = run(*FILMSTILL, "convert", str(exported), str(other), *to_student, cwd=tmp_path, check=False)
    assert refusal(refused) == (
        f"{exported}: a network of other sizes: dim 48 (params.yaml: 1536), ffn_dim 96 (params.yaml: 8960), "
        "num_heads 4 (params.yaml: 12), num_layers 2 (params.yaml: 30), freq_dim 32 (params.yaml: 256), "
        "text_dim 32 (params.yaml: 4096); set model.* to match or run its stage"
    )
    assert not other.exists()


@torch.no_grad()
def test_the_student_is_read_back_by_diffusers(mini: Path, tmp_path: Path):
    from diffusers import WanTransformer3DModel

    student = mini / "data/distill/student.safetensors"
    words = ("convert", str(student), str(tmp_path / "export"), "--to", "diffusers")
    line = f"{tmp_path / 'export'}: diffusers, from filmstill; dim 48, 2 layers, 4 heads, 69 tensors\n"
    assert run(*FILMSTILL, *words, cwd=mini).stdout == line
    ours, _ = load_model(student)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "export")
    dice = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 3, 16, 4, 6, generator=dice), torch.randn(1, 24, 32, generator=dice)
    t = torch.tensor([625.0])
    assert_close(swap(ours(x, t, ours.read_text(text))), theirs(swap(x), t, text, return_dict=False)[0], 2e-5)
