"""`jobs`, `cancel` and `check` without a cluster, and what they read of damaged work folders."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from filmstill.__main__ import main
from filmstill.cluster import slurm
from filmstill.cluster.commands import show_jobs
from filmstill.cluster.follow import JobDisplay
from filmstill.cluster.job import end_record
from filmstill.cluster.job_checkout import CHECKOUT, checkout_of, has_lost_experiment
from filmstill.cluster.submit import RECORD, Submission, _record, recorded
from filmstill.errors import FilmstillError
from filmstill.runtime.job_folder import REPORT

JOB = slurm.QueuedJob("7", "distill-0123.abcd", "RUNNING", "None", None, 0, "node1", "/repository")
RESULT = "result.json"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("executor: slrm\n", "cluster.yaml: executor: is 'slrm', allowed: one of local, slurm"),
        ("executor: [\n", "cluster.yaml: not readable as YAML: "),
        ("executor: slurm\nstages: {teacher: {nodes: 2}}\n", "cluster.yaml: stages.teacher.nodes: is 2, allowed: 1"),
    ],
)
def test_jobs_and_check_name_the_fault_of_cluster_yaml(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], text: str, line: str
):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    Path("cluster.yaml").write_text(text)
    with pytest.raises(FilmstillError) as error:
        show_jobs()
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    monkeypatch.setattr("filmstill.params.profile.check", lambda: None)
    assert main(["check"]) == 2
    assert capsys.readouterr().err.startswith(f"filmstill: {line}")


def submission_of(work: Path) -> tuple[Submission, dict[str, Path]]:
    """A submission with its files as a job writes them, by name."""
    folder = work / "jobs/0001"
    folder.mkdir(parents=True)
    report = {"label": "distill", "total": 5, "n": 3, "unit": "step", "unit_scale": False, "postfix": {"loss": "1"}}
    facts: dict[str, Any] = {
        REPORT: report,
        RESULT: {"outcome": "crashed", "message": "ValueError: no", "inputs": "0", "rank": 0},
        RECORD: [{"name": JOB.name, "id": "6", "folder": str(folder)}],
    }
    paths = {name: work / name if name == RECORD else folder / name for name in facts} | {CHECKOUT: work / CHECKOUT}
    for name, value in facts.items():
        paths[name].write_text(json.dumps(value))
    paths[CHECKOUT].write_text("/main/.dvc/tmp/exps/removed")
    return Submission(JOB.name, "6", str(folder)), paths


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def removed(path: Path) -> None:
    path.unlink()


def of_another_shape(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


SHAPES = ("{}", "[]", "[{}]", "3", "null", '"text"', "[" * 100_000, "\0", "x" * 300)
ANYTHING = [emptied, garbled, made_a_folder, removed, *map(of_another_shape, SHAPES)]
REPORTED = '{"label": "distill", "total": %s, "n": %s, "unit": %s, "unit_scale": %s, "postfix": %s}'
REPORTS = [
    REPORTED % values
    for values in (
        ("5", "null", '"step"', "false", "{}"),
        ('"5"', "3", '"step"', "false", "{}"),
        ("5", "true", '"step"', "false", "{}"),
        ("5", "NaN", '"step"', "false", "{}"),
        ("5", "1e999", '"step"', "false", "{}"),
        ("1" + "0" * 400, "3", '"step"', "false", "{}"),
        ("5", "3", "null", "false", "{}"),
        ("5", "3", '"step"', "[]", "{}"),
        ("5", "3", '"step"', "false", '{"loss": 1}'),
        ("5", "3", '"step"', "false", "[]"),
    )
]
RECORDS = [
    '[{"name": "d", "id": "6", "folder": "x"}]',
    '[{"name": "d", "id": "6", "folder": "../jobs/0001"}]',
    '[{"name": "d", "id": "6", "folder": "\\u0000"}]',
    '[{"name": "d", "id": 6, "folder": ".work/distill/0123/jobs/0001"}]',
    '[{"name": "d", "id": "../6", "folder": ".work/distill/0123/jobs/0001"}]',
    '[{"name": null, "id": "6", "folder": ".work/distill/0123/jobs/0001"}]',
    '{"name": "d", "id": "6", "folder": ".work/distill/0123/jobs/0001"}',
]
RESULTS = [
    '{"outcome": "crashed", "message": null}',
    '{"outcome": "crashed", "message": "no", "rank": "0"}',
    '{"outcome": ["crashed"], "message": "no"}',
    '{"outcome": "neither", "message": "no"}',
]
DAMAGES = [(name, damage) for name in (REPORT, RESULT, RECORD, CHECKOUT) for damage in ANYTHING] + [
    (name, of_another_shape(text))
    for name, texts in {REPORT: REPORTS, RECORD: RECORDS, RESULT: RESULTS}.items()
    for text in texts
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_file_of_a_work_folder_that_is_not_right_counts_as_absent(
    tmp_path: Path, monkeypatch, capsys, name: str, damage: Callable[[Path], None]
):
    """`jobs` prints its table, a wait goes on, and the next submission is recorded or said not to be."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setattr(slurm, "live_jobs", lambda _root: [])
    work = Path(".work/distill/0123")
    submission, paths = submission_of(work)
    shard = replace(JOB, name="distill-0123-abcd_1", folder=str(work.resolve()))
    assert has_lost_experiment(shard, work) and recorded(work) == [submission] and end_record(paths[REPORT].parent)
    damage(paths[name])
    show_jobs()
    table = capsys.readouterr().out
    assert ("3/5 step" in table) == (name not in (REPORT, RECORD))
    assert ("crashed ValueError: no" in table) == (name not in (RESULT, RECORD))
    assert ("no job of this repository" in table) == (name == RECORD)
    with JobDisplay("distill", submission) as display:
        display.refresh()
    assert ("3/5" in capsys.readouterr().err) == (name != REPORT)
    assert (end_record(paths[REPORT].parent) is None) == (name == RESULT)
    assert (checkout_of(shard, work) is None) == (name == CHECKOUT)
    assert has_lost_experiment(shard, work) == (name != CHECKOUT)
    latest = Submission(JOB.name, "8", str(work / "jobs/0002"))
    _record(work, latest)
    expected = [submission, latest] if name != RECORD else [latest]
    assert recorded(work) == ([] if paths[RECORD].is_dir() else expected)
