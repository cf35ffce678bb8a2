"""The whole graph on the smoke profile, as a user drives it."""

import json
import os
import subprocess
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from safetensors import safe_open

from repository import dvc, run

ARMS = ("real", "teacher", "undistilled", "init", "student")
KEYS = {
    "all_attributes",
    "object",
    "colour",
    "motion",
    "total",
    "seconds_per_clip",
    "evaluations_per_clip",
    "first_block_seconds",
}


def test_smoke_takes_under_90_seconds(smoke: Path):
    assert float((smoke / ".seconds").read_text()) < 90


def test_metrics_hold_every_arm_and_number(smoke: Path):
    metrics = json.loads((smoke / "data/evaluate/metrics.json").read_text())
    for arm in ARMS:
        assert set(metrics[arm]) >= KEYS, arm
    assert len(metrics["student"]["drift"]) == 2  # 24 frames, windows of 12
    assert metrics["real"]["all_attributes"] == 1
    assert metrics["student"]["evaluations_per_clip"] == pytest.approx(4.75)
    assert metrics["teacher"]["evaluations_per_clip"] == 16
    assert json.loads((smoke / "data/ode_init/metrics.json").read_text())["gate"]["passed"] is True
    details = json.loads((smoke / "data/evaluate/details.json").read_text())
    for name, score in details["student"]["dimensions"].items():
        low, high = details["student"]["intervals"][name]
        assert low - 1e-6 <= score <= high + 1e-6  # means of float32
        assert details["world"]["floor"][name] < details["world"]["ceiling"][name]


def test_every_out_of_the_graph_exists_and_is_locked(smoke: Path):
    graph = OmegaConf.to_container(OmegaConf.load(smoke / "dvc.yaml"), resolve=False)["stages"]
    lock = OmegaConf.to_container(OmegaConf.load(smoke / "dvc.lock"))["stages"]
    for name, stage in graph.items():
        listed = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
        paths = {next(iter(out)) if isinstance(out, dict) else out for out in listed}
        assert {out["path"] for out in lock[name]["outs"]} == paths
        assert all((smoke / path).exists() for path in paths)


def test_samples_share_prompts_seeds_and_open_as_video(smoke: Path):
    manifest = pd.read_parquet(smoke / "data/samples/manifest.parquet")
    asked = {arm: rows[["prompt_id", "seed"]].values.tolist() for arm, rows in manifest.groupby("arm")}
    assert all(asked[arm] == asked["teacher"] for arm in ARMS)
    video = iio.imread(smoke / "data/samples" / manifest["video"].iloc[0], plugin="pyav")
    assert video.shape == (12, 128, 128, 3)
    assert len(iio.imread(smoke / "data/evaluate/sheet.gif")) == 12


def test_second_repro_has_nothing_to_do_within_5_seconds(smoke: Path, alone: None):
    start = time.perf_counter()
    said = dvc(smoke, "repro").stdout
    assert "up to date" in said and "Running stage" not in said
    assert time.perf_counter() - start < 5


def test_an_artifact_that_was_written_into_is_put_back(copied: Path):
    """DVC's cache shares no file with data/: with hard links, whoever writes into one spoils both for good."""
    shard = copied / "data/ode_pairs/pairs-0000.safetensors"
    whole = shard.read_bytes()
    shard.unlink()
    dvc(copied, "checkout")  # the shard as DVC lays it out
    with shard.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    assert shard.read_bytes() != whole
    dvc(copied, "repro")
    assert shard.read_bytes() == whole


def test_one_parameter_of_distill_runs_three_stages(copied: Path):
    text = (copied / "params.yaml").read_text()
    (copied / "params.yaml").write_text(text.replace("critic_updates: 2", "critic_updates: 1"))
    planned = dvc(copied, "repro", "--dry").stdout
    ran = [line.split("'")[1] for line in planned.splitlines() if line.startswith("Running stage")]
    assert ran[0] == "distill" and set(ran) <= {"distill", "samples", "evaluate"}
    assert "critic_updates" in dvc(copied, "params", "diff").stdout


def test_dvc_answers(smoke: Path):
    assert "distill" in dvc(smoke, "dag").stdout
    shown = json.loads(dvc(smoke, "metrics", "show", "--json").stdout)
    assert "data/evaluate/metrics.json" in json.dumps(shown)
    plots = dvc(smoke, "plots", "show", "--json").stdout
    assert "drift.csv" in plots and "loss.tsv" in plots


def test_experiments_change_one_parameter_and_keep_the_rest(copied: Path):
    dvc(copied, "exp", "run", "-n", "try", "-S", "distill.lr=2e-6", "distill")
    shown = json.loads(dvc(copied, "exp", "show", "--json").stdout)
    assert "try" in json.dumps(shown)
    lock = OmegaConf.to_container(OmegaConf.load(copied / "dvc.lock"))["stages"]
    assert lock["distill"]["params"]["params.yaml"]["distill"]["lr"] == 2e-6


def test_generate_makes_the_clip_of_the_samples(smoke: Path, tmp_path: Path):
    asked = pd.read_parquet(smoke / "data/samples/manifest.parquet").query("arm == 'student'")
    first, second = (iio.imread(smoke / "data/samples" / video, plugin="pyav") for video in asked["video"][:2])
    prompt = pd.read_parquet(smoke / "data/prompts/eval.parquet")["text"].iloc[0]
    assert asked["prompt"].iloc[0] == asked["prompt"].iloc[1] == prompt and list(asked["seed"][:2]) == [0, 1]
    words = ("--seed", "0", "--out", str(tmp_path / "a.mp4"))
    run("python", "-m", "filmstill", "generate", prompt, *words, cwd=smoke)
    made = iio.imread(tmp_path / "a.mp4", plugin="pyav").astype(int)
    # One clip alone or among others: matrix products of other sizes, other last bits, hardly another pixel.
    assert np.abs(made - first).mean() < 0.1 < 10 < np.abs(made - second).mean()


def test_generate_makes_videos(smoke: Path, tmp_path: Path):
    said = run(
        "python", "-m", "filmstill", "generate", "a red three bobs up and down", "--out", str(tmp_path / "a.gif"),
        "--seed", "0", "1", cwd=smoke,
    ).stdout  # fmt: skip
    assert said.count("first block after") == 2
    assert len(iio.imread(tmp_path / "a-000.gif")) == 12
    long = ("--frames", "24", "--window", "6", "--out", str(tmp_path / "b.mp4"))
    run("python", "-m", "filmstill", "generate", "a red three bobs up and down", *long, cwd=smoke)
    assert len(iio.imread(tmp_path / "b.mp4", plugin="pyav")) == 24


def test_results_and_prune(copied: Path):
    assert "student" in run("python", "-m", "filmstill", "results", cwd=copied).stdout
    stale = copied / ".work/teacher/0123456789abcdef"
    stale.mkdir()
    (stale / "x").write_bytes(b"0" * 1000)
    said = run("python", "-m", "filmstill", "prune", cwd=copied).stdout
    assert "removed .work/teacher/0123456789abcdef" in said and not stale.exists()
    assert len(list((copied / ".work/teacher").iterdir())) == 1  # what dvc.lock names stays


def test_bare_snakemake_names_dvc_repro(smoke: Path):
    done = run("python", "-m", "snakemake", "--cores", "1", cwd=smoke, check=False)
    assert done.returncode != 0 and "dvc repro" in done.stdout + done.stderr


def test_weights_say_what_they_are(smoke: Path):
    with safe_open(smoke / "data/distill/student.safetensors", framework="pt") as file:
        assert json.loads(json.loads(file.metadata()["filmstill"])["facts"])["steps"] == 4


def test_help_teaches():
    root = Path(__file__).parents[2]
    said = run("python", "-m", "filmstill", "--help", cwd=root).stdout
    for word in ("profile", "generate", "results", "prune", "examples", "dvc repro"):
        assert word in said


def test_makefile_lists_its_targets():
    root = Path(__file__).parents[2]
    said = subprocess.run(["make", "--silent", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    for target in ("repro", "test", "lint", "clean", "help"):
        assert target in said
