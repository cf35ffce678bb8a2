"""The whole graph on the smoke profile, through the commands that a user calls."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

from filmstill.command_line import EPILOG, parser
from filmstill.runtime.tensor_files import load_tensors
from repository import ROOT, dvc, run
from stage_runs import refusal, set_parameter

STAGES = ("provided", "prompts", "teacher", "ode_pairs", "ode_init", "distill", "samples", "evaluate")
ARMS = ("real", "teacher", "undistilled", "init", "student")
GENERATE = ("python", "-m", "filmstill", "generate", "a red star bobs up and down")
DIGITS = {"all_attributes": 3, "symbol": 3, "colour": 3, "motion": 3, "fidelity": 2, "entropy": 3, "held_out": 3}
DIGITS |= {"evaluations_per_clip": 2, "seconds_per_clip": 3, "first_block_seconds": 3}  # of the results table's columns
STANDARD = ("repro", "test", "lint", "clean", "help")
KEYS = {*DIGITS, "total", "open"}


def stages_run(output: str) -> list[str]:
    """The stages that `dvc repro` ran, in order."""
    return re.findall(r"(?m)^Running stage '(\w+)':$", output)


def skipped(stage: str) -> str:
    """The line of `dvc repro` for a stage that does not run."""
    return f"Stage '{stage}' didn't change, skipping"


def test_every_stage_ran_once_in_the_order_of_the_graph(smoke: Path):
    assert stages_run((smoke / "repro.log").read_text()) == list(STAGES)


def test_metrics_hold_every_arm_and_number(smoke: Path):
    metrics = json.loads((smoke / "data/evaluate/metrics.json").read_text())
    for arm in ARMS:
        assert set(metrics[arm]) >= KEYS, arm
    assert set(metrics["stream"]["by_offset"]) == {"0", "3", "6", "9"}
    assert len(metrics["stream"]["by_window"]["fidelity"]) == 2  # 24 frames, windows of 12
    assert metrics["picture"]["prompts"] == 3 and metrics["picture"]["first_frame_kept"] == 1
    change = metrics["prompt_change"]
    assert (change["prompts"], change["change_frame"], change["frames"]) == (3, 12, 36)
    assert 0 <= change["later_worst"] <= change["later_mean"] <= 1
    assert metrics["real"]["all_attributes"] == metrics["real"]["held_out"] == metrics["real"]["open"] == 1
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
    requested = {arm: rows[["prompt_id", "seed"]].values.tolist() for arm, rows in manifest.groupby("arm")}
    assert all(requested[arm] == requested["teacher"] for arm in ARMS)
    groups = manifest[manifest["arm"] == "student"].groupby("group", sort=False)["prompt_id"].agg(["nunique", "size"])
    assert groups.reset_index().values.tolist() == [["main", 4, 8], ["held_out", 2, 2], ["open", 3, 6]]
    video = iio.imread(smoke / "data/samples" / manifest["video"].iloc[0], plugin="pyav")
    assert video.shape == (12, 128, 128, 3)
    for name, frames in (("sheet", 12), ("stream", 24)):
        assert len(list(iio.imiter(smoke / f"data/evaluate/{name}.gif"))) == frames


def test_clips_from_a_picture_begin_with_it_and_a_new_prompt_changes_only_what_comes_after(smoke: Path):
    latents = {
        arm: load_tensors(smoke / f"data/samples/latents/{arm}-0000.safetensors")[0]["latents"]
        for arm in ("real", "student", "student_long", "student_picture", "student_changed")
    }
    first = slice(0, 6, 2)  # each prompt's first seed, of two
    picture, changed, long = (latents[f"student_{arm}"] for arm in ("picture", "changed", "long"))
    assert torch.equal(picture[:, 0], latents["real"][first, 0])
    assert not torch.equal(picture[:, 1:], latents["student"][first, 1:])
    assert changed.shape[:2] == (3, 36)
    # Another batch size changes the last bits.
    assert torch.allclose(changed[:2, :12], long[:, :12], atol=1e-4)
    assert (changed[:2, 12:24] - long[:, 12:24]).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-2
    manifest = pd.read_parquet(smoke / "data/samples/manifest.parquet")
    rows = manifest[manifest["arm"] == "student_changed"]
    assert set(rows["change_frame"]) == {12} and set(rows["next_prompt"]) <= set(rows["prompt"])
    assert manifest.loc[manifest["arm"] != "student_changed", ["next_prompt", "change_frame"]].isna().all(axis=None)


def test_a_second_repro_has_nothing_to_do(smoke: Path):
    lines = dvc(smoke, "repro").stdout.splitlines()
    assert lines == [*map(skipped, STAGES), "Data and pipelines are up to date."]


def test_an_artifact_that_was_written_into_is_put_back(copied: Path):
    """DVC's cache shares no file with data/: through a hard link, writing into data/ would damage the cache too."""
    shard = copied / "data/ode_pairs/pairs-0000.safetensors"
    whole = shard.read_bytes()
    shard.unlink()
    dvc(copied, "checkout")  # the shard as DVC puts it there
    with shard.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    assert shard.read_bytes() != whole
    dvc(copied, "repro")
    assert shard.read_bytes() == whole


def test_a_parameter_of_distill_makes_no_earlier_stage_run(copied: Path):
    set_parameter(copied, "distill.critic_updates", 1)
    planned = dvc(copied, "repro", "--dry", "distill").stdout
    assert planned.splitlines()[:5] == [*map(skipped, STAGES[:5])] and stages_run(planned) == ["distill"]
    (row,) = dvc(copied, "params", "diff", "--md").stdout.splitlines()[2:-1]
    assert row.strip("|").split() == ["params.yaml", "|", "distill.critic_updates", "|", "2", "|", "1"]


def test_dvc_shows_graph_metrics_and_plots(smoke: Path):
    assert set(re.findall(r"\| (\w+) \|", dvc(smoke, "dag").stdout)) == set(STAGES)
    shown = json.loads(dvc(smoke, "metrics", "show", "--json").stdout)[""]["data"]
    for name in ("prompts/counts", "ode_init/metrics", "distill/metrics", "evaluate/metrics"):
        written = json.loads((smoke / f"data/{name}.json").read_text())
        assert shown[f"data/{name}.json"]["data"] == scalars(written)
    plots = json.loads(dvc(smoke, "plots", "show", "--json").stdout)["data"]
    curves = {f"data/{stage}/curves/loss.tsv" for stage in ("teacher", "ode_init", "distill")}
    assert {*curves, "data/evaluate/drift.csv", "data/evaluate/scores.csv"} <= set(plots)


def scalars(metrics: dict[str, object]) -> dict[str, object]:
    """What DVC shows of a metrics file: numbers, texts, and mappings that have some."""
    found = {name: scalars(value) if isinstance(value, dict) else value for name, value in metrics.items()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str | int | float) or (isinstance(value, dict) and value)
    }


def test_an_experiment_changes_one_parameter_and_runs_what_depends_on_it(copied: Path):
    before = OmegaConf.to_container(OmegaConf.load(copied / "dvc.lock"))["stages"]
    output = dvc(copied, "exp", "run", "-n", "try", "-S", "distill.lr=2e-6").stdout
    assert stages_run(output) == ["distill", "samples", "evaluate"]
    shown = json.loads(dvc(copied, "exp", "show", "--json").stdout)
    named = [row["name"] for branch in shown for found in branch["experiments"] or [] for row in found["revs"]]
    assert named == ["try"]
    after = OmegaConf.to_container(OmegaConf.load(copied / "dvc.lock"))["stages"]
    assert after["distill"]["params"]["params.yaml"]["distill"]["lr"] == 2e-6
    assert all(after[stage] == before[stage] for stage in STAGES[:5])


def test_generate_makes_the_clip_of_the_samples(smoke: Path, tmp_path: Path):
    rows = pd.read_parquet(smoke / "data/samples/manifest.parquet").query("arm == 'student'")
    first, second = (iio.imread(smoke / "data/samples" / video, plugin="pyav") for video in rows["video"][:2])
    prompt = rows["prompt"].iloc[0]
    assert rows["prompt"].iloc[1] == prompt and list(rows["seed"][:2]) == [0, 1]
    words = ("--seed", "0", "--out", str(tmp_path / "a.mp4"))
    run("python", "-m", "filmstill", "generate", prompt, *words, cwd=smoke)
    made = iio.imread(tmp_path / "a.mp4", plugin="pyav").astype(int)
    # In another batch size matrix products differ in their last bits, which changes hardly a pixel.
    assert np.abs(made - first).mean() < 0.1 < 10 < np.abs(made - second).mean()


def test_generate_makes_videos(smoke: Path, tmp_path: Path):
    def generate(name: str, *words: str) -> list[str]:
        out = ("--out", str(tmp_path / name))
        return run(*GENERATE, *out, *words, cwd=smoke).stdout.splitlines()

    pattern = r"(\S+): 'a red star bobs up and down', seed (\d): first block after \d+\.\d{3} s, \d+ frames per second"
    found = [re.fullmatch(pattern, line) for line in generate("a.gif", "--seed", "0", "1")]
    paths = [tmp_path / f"a-00{seed}.gif" for seed in (0, 1)]
    assert [(line[1], line[2]) for line in found] == [(str(path), path.stem[-1]) for path in paths]
    assert [len(iio.imread(path)) for path in paths] == [12, 12]
    (line,) = generate("b.mp4", "--frames", "24", "--window", "6")
    assert re.fullmatch(pattern, line)[1] == str(tmp_path / "b.mp4")
    assert len(iio.imread(tmp_path / "b.mp4", plugin="pyav")) == 24


def test_results_show_the_metrics(smoke: Path):
    lines = run("python", "-m", "filmstill", "results", cwd=smoke).stdout.splitlines()
    metrics = json.loads((smoke / "data/evaluate/metrics.json").read_text())
    assert lines[0].rstrip() == "symbols-bench, 8 clips per arm"
    for arm in ("teacher", "student"):
        (row,) = (line.split() for line in lines if line.startswith(f" {arm} "))
        assert row == [arm, *(f"{metrics[arm][name]:.{digits}f}" for name, digits in DIGITS.items())]
    assert any(line.startswith("long stream of 24 frames, 2 prompts: all right ") for line in lines)
    assert "everything on one page: data/evaluate/report.html" in lines


def test_prune_keeps_what_dvc_lock_names(copied: Path):
    kept = sorted((copied / ".work").glob("*/*"))
    stale = copied / ".work/teacher/0123456789abcdef"
    stale.mkdir()
    (stale / "x").write_bytes(b"0" * 1_000_000)
    first, last = run("python", "-m", "filmstill", "prune", cwd=copied).stdout.splitlines()
    assert first == "removed .work/teacher/0123456789abcdef (1.0 MB)"
    assert re.fullmatch(r"\d+\.\d MB in \.work are left", last)
    assert sorted((copied / ".work").glob("*/*")) == kept


def test_bare_snakemake_names_dvc_repro(smoke: Path):
    done = run("python", "-m", "snakemake", "--cores", "1", cwd=smoke, check=False)
    line = "the graph is DVC's: run `dvc repro` (Snakemake only fans out the shards of a stage)"
    assert refusal(done, code=1) == line


def test_a_students_file_holds_its_rollout(smoke: Path):
    with safe_open(smoke / "data/distill/student.safetensors", framework="pt") as file:
        facts = json.loads(json.loads(file.metadata()["filmstill"])["facts"])
    student = OmegaConf.to_container(OmegaConf.load(smoke / "params.yaml"))["student"]
    assert facts == {**student, "shift": 3.0, "latent_shape": [12, 16, 8, 8], "fps": 8}


def test_help_lists_every_command_and_its_examples_are_valid():
    shown = run("python", "-m", "filmstill", "--help", cwd=ROOT).stdout
    (commands,) = (action.choices for action in parser()._actions if action.dest == "command")
    listed = shown.partition("positional arguments:\n")[2].partition("\noptions:")[0]
    assert re.findall(r"(?m)^    (\w+)", listed) == list(commands)
    assert shown.endswith(f"{EPILOG}\n")
    examples = re.findall(r"(?m)^  python -m filmstill (.+?)(?:   .*)?$", EPILOG)
    assert len(examples) == 5
    for example in examples:
        assert parser().parse_args(shlex.split(example)).command == example.split()[0]


def test_make_help_lists_every_target():
    shown = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = dict(re.findall(r"(?m)^([a-z-]+):.*?##\s*(.*)$", (ROOT / "Makefile").read_text()))
    assert {*STANDARD} <= targets.keys()
    assert [tuple(line.split(None, 1)) for line in shown.splitlines()] == [*targets.items()]
