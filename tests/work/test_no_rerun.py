"""Which edits make a finished stage run again: those that can change what it makes, and no others."""

import json
from pathlib import Path

import pytest

import toy_training
from closure import NO_DEPENDENCY
from filmstill.training import loop
from repository import ROOT, dvc
from toy_training import NoTelemetry, assert_same_end

SOURCE = Path("src/filmstill")
TRAINED = {"teacher", "ode_init", "distill"}


def changed_deps(folder: Path) -> dict[str, set[str]]:
    """By stage: the files it depends on that differ from those it was made with; {} where nothing would run."""
    found = json.loads(dvc(folder, "status", "--json").stdout)
    return {stage: {path for change in changes for path in change["changed deps"]} for stage, changes in found.items()}


def edit(path: Path, old: str = "", new: str = "\n# Edited.\n") -> None:
    """Replace `old` once; append where it is empty."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else text + new)


def test_a_gpu_more_in_the_table_makes_nothing_run(copied: Path):
    edit(copied / SOURCE / "runtime/gpus.py", "GPUS = {\n", 'GPUS = {\n    "b300-288gb": Gpu(268.0 * GIB, 2250e12),\n')
    assert changed_deps(copied) == {}


def test_edits_of_what_only_estimates_or_submits_make_nothing_run(copied: Path):
    """Every module that closure.py names as no dependency."""
    edited = {path.relative_to(ROOT) for module in NO_DEPENDENCY for path in module_files(module)}
    assert {
        SOURCE / "plan/stages.py",
        SOURCE / "runtime/gpus.py",
        SOURCE / "training/telemetry.py",
        SOURCE / "models/flops.py",
        SOURCE / "runtime/stopwatch.py",
    } <= edited
    for path in edited:
        edit(copied / path)
    assert changed_deps(copied) == {}
    assert dvc(copied, "status").stdout == "Data and pipelines are up to date.\n"


def module_files(module: str) -> set[Path]:
    """The file of a module, or every file of a package."""
    path = ROOT / "src" / Path(*module.split("."))
    return {*path.rglob("*.py")} if path.is_dir() else {path.with_suffix(".py")}


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("diffusion/schedule.py", {"teacher", "ode_pairs", "ode_init", "distill", "samples"}),
        ("training/loop.py", TRAINED),
        ("objectives/dmd.py", {"distill"}),
        ("prompts/duplicates.py", {"prompts"}),
    ],
)
def test_an_edit_of_what_a_stage_computes_with_makes_it_run(copied: Path, name: str, stages: set[str]):
    edit(copied / SOURCE / name)
    assert changed_deps(copied) == {stage: {str(SOURCE / name)} for stage in stages}


def test_another_objective_makes_nothing_run(copied: Path):
    (copied / SOURCE / "objectives/other.py").write_text('"""Another objective."""\n')
    assert changed_deps(copied) == {}


def test_training_without_telemetry_writes_the_same_bytes(tmp_path: Path, whole: tuple, monkeypatch):
    """This is why an edit of telemetry makes no training run again."""
    monkeypatch.setattr(loop, "Telemetry", NoTelemetry)
    losses, state = toy_training.run(tmp_path)
    assert_same_end(tmp_path, losses, state, whole)
    without, with_telemetry = contents(tmp_path), contents(whole[0])
    assert with_telemetry.keys() - without.keys() == {Path("telemetry.json")}
    assert [path for path in without if without[path] != with_telemetry[path]] == []


def contents(folder: Path) -> dict[Path, object]:
    """By path: the bytes of every file, without checkpoint.json, which holds the digests of safetensors files.

    safetensors writes the metadata of a header in random order, so headers are compared as JSON.
    """
    found: dict[Path, object] = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "checkpoint.json":
            data = path.read_bytes()
            if path.suffix == ".safetensors":
                start = 8 + int.from_bytes(data[:8], "little")
                found[path.relative_to(folder)] = (json.loads(data[8:start]), data[start:])
            else:
                found[path.relative_to(folder)] = data
    return found
