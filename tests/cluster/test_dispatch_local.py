"""Dispatch without a cluster: local runs, the outcomes of a job, what a wait shows."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from filmstill.cluster.config import Cluster
from filmstill.cluster.dispatch import _failure, count_losses, dispatched
from filmstill.cluster.follow import JobDisplay, describe
from filmstill.cluster.job import classify, end_record
from filmstill.cluster.rendezvous import port
from filmstill.cluster.slurm import QueuedJob
from filmstill.cluster.submit import Submission, next_run
from filmstill.errors import FilmstillError, GateError
from filmstill.params.load import Values
from filmstill.runtime.job_folder import JOB
from filmstill.runtime.logs import log_to_stderr
from filmstill.runtime.progress import progress
from filmstill.work.stage import Stage

RUNS = QueuedJob("7", "", "RUNNING", "None", None, 2, "node[1-2]", "")
WAITS = QueuedJob("7", "distill-0.abcd", "PENDING", "Resources", "2026-01-02T03:04:05", 0, "", "/repository")


@pytest.fixture
def log_on_stderr() -> Iterator[None]:
    """filmstill's log goes to stderr during the test, as in a stage's process."""
    logger = logging.getLogger("filmstill")
    before = logger.handlers[:], logger.level, logger.propagate
    log_to_stderr()
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize("cluster", [None, "executor: local\n"])
def test_without_slurm_the_stage_runs_in_this_process(tmp_path, monkeypatch, cluster):
    monkeypatch.chdir(tmp_path)
    if cluster:
        Path("cluster.yaml").write_text(cluster)
    ran: list[Stage] = []
    stage = Stage("distill", tmp_path, Values({}))
    dispatched(ran.append)(stage)
    assert ran == [stage]


def test_submitting_and_waiting_imports_no_torch_and_a_local_run_no_submitit():
    line = "import sys, filmstill.cluster.dispatch; print([name in sys.modules for name in ('torch', 'submitit')])"
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True).stdout == "[False, False]\n"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("CANCELLED", "distill: job 7 was cancelled; `dvc repro` starts from the beginning: nothing is saved yet"),
        (
            "TIMEOUT",
            "job 7 reached its time limit before it could save: a step and a checkpoint take longer than signal_"
            "seconds (120); set more in cluster.yaml",
        ),
        ("OUT_OF_MEMORY", "job 7 used more memory than it requested; memory_gb: is 8, set more in cluster.yaml"),
        ("FAILED", "job 7 ended before its stage started: /bin/bash: nowhere: not found; its log: "),
    ],
)
def test_a_deterministic_failure_is_not_retried(tmp_path, state, words):
    submission = Submission("distill-0.abcd", "7", str(tmp_path))
    submission.log("err").write_text("/bin/bash: nowhere: not found\n")
    with pytest.raises(FilmstillError, match=re.escape(words)):
        count_losses("distill", submission, replace(RUNS, state=state), Cluster())


def test_an_exception_of_several_lines_is_told_on_one(tmp_path):
    submission = Submission("distill-0.abcd", "7", str(tmp_path))
    log = "Traceback (most recent call last):\n  File x\nRuntimeError: Waited for 60 seconds\njobs/7_submitted.pkl\n"
    submission.log("err").write_text(log)
    with pytest.raises(FilmstillError, match=r"started: RuntimeError: Waited for 60 seconds jobs/7_submitted\.pkl"):
        count_losses("distill", submission, replace(RUNS, state="FAILED"), Cluster())


@pytest.mark.parametrize(("rank", "shown", "logs"), [(0, True, False), (0, False, True), (1, True, True)])
def test_the_end_of_a_traceback_is_shown_once(tmp_path, filmstill_log, rank: int, shown: bool, logs: bool):
    submission = Submission("distill-0.abcd", "7", str(tmp_path))
    submission.log("err", rank).write_text("Traceback (most recent call last):\nValueError: no\n")
    end = {"outcome": "crashed", "message": "ValueError: no (stages/distill.py:1, in main)", "rank": rank}
    line = str(_failure("distill", submission, end, shown))
    assert line.startswith("distill: job 7 crashed: ValueError: no (stages/distill.py:1") and f"_{rank}_log" in line
    assert ("Traceback" in filmstill_log.text) == logs


def test_concurrent_jobs_have_distinct_ports_outside_the_ephemeral_range():
    ports = {port(str(job)) for job in range(50_000, 58_000)}
    assert len(ports) == 8000
    assert min(ports) >= 1024 and max(ports) < 32768  # the first port of Linux's default range for outgoing connections


def test_the_message_about_the_next_run_follows_from_what_is_saved(tmp_path):
    assert next_run(tmp_path) == "starts from the beginning: nothing is saved yet"
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/pairs-0000.safetensors").touch()
    assert next_run(tmp_path) == "keeps the finished shards and makes the rest"
    (tmp_path / "checkpoints/step-0000010").mkdir(parents=True)
    assert next_run(tmp_path) == "resumes from the last checkpoint"


def test_starts_that_checkpointed_and_requeued_are_not_losses(tmp_path):
    submission = Submission("distill-0.abcd", "7", str(tmp_path))
    for start in range(2):
        (tmp_path / f"clean-exit-{start}").touch()
    assert count_losses("distill", submission, replace(RUNS, state="NODE_FAIL", restarts=3), Cluster()) == 2


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (GateError("distill.gate: too low"), "gate", "distill.gate: too low"),
        (FilmstillError("params.yaml: seed: is -1"), "refused", "params.yaml: seed: is -1"),
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), "refused", "a.json: disk full while writing"),
        (ValueError("two\nlines"), "crashed", "ValueError: two lines ("),
        (MemoryError(), "crashed", "MemoryError ("),
        (RuntimeError("[pair.cc:534] Connection closed by peer [10.0.0.2]:1234"), "lost", "Connection closed by peer"),
    ],
)
def test_each_ending_has_its_own_message(error, outcome, words):
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fails()
    found, line = classify(caught.value)
    assert found == outcome and words in line and "\n" not in line
    assert (f"{Path(__file__).name}:" in line and "in fails" in line) == (outcome == "crashed")


def test_the_root_cause_is_reported_not_lost_peer_errors(tmp_path):
    assert end_record(tmp_path) is None
    ends = [
        ("result.json", "lost", 3),
        ("crash-1.json", "lost", 1),
        ("crash-2.json", "crashed", 2),
        ("crash-3.json", "crashed", 4),
    ]
    for name, outcome, when in ends:
        (tmp_path / name).write_text(json.dumps({"outcome": outcome, "message": name}))
        os.utime(tmp_path / name, (when, when))
    assert end_record(tmp_path) == {"outcome": "crashed", "message": "crash-2.json"}
    for name in ("crash-2.json", "crash-3.json"):
        (tmp_path / name).unlink()
    assert end_record(tmp_path) is None  # no rank failed by itself: one was killed


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (WAITS, "pending (Resources), starts about 2026-01-02T03:04:05"),
        (RUNS, "running on node[1-2], requeued twice"),
        (replace(RUNS, restarts=1), "running on node[1-2], requeued once"),
        (replace(RUNS, restarts=3), "running on node[1-2], requeued 3 times"),
        (replace(WAITS, reason="None", begins=None), "pending (new)"),
        (None, "is unknown to SLURM"),
    ],
)
def test_job_state_line(job, words):
    assert "".join(describe(job)) == words


@pytest.mark.parametrize(("rank", "writes"), [("0", True), ("1", False)])
def test_in_a_job_rank_0_reports_instead_of_drawing(tmp_path, monkeypatch, capsys, rank, writes):
    monkeypatch.setenv(JOB, str(tmp_path))
    monkeypatch.setenv("RANK", rank)
    with progress("distill", 5, done=2) as bar:
        bar.update()
        bar.set_postfix(loss="0.5")
        assert bar.n == 3
    assert capsys.readouterr().err == ""
    report = tmp_path / "progress.json"
    assert report.exists() == writes
    if writes:
        expected: dict[str, Any] = {"label": "distill", "total": 5, "n": 3, "unit": "step", "unit_scale": False}
        assert json.loads(report.read_text()) == expected | {"postfix": {"loss": "0.5"}}


def test_a_wait_shows_new_whole_lines_the_state_when_it_changes_and_the_bar(tmp_path, capsys, log_on_stderr):
    submission = Submission(WAITS.name, WAITS.id, str(tmp_path))
    submission.log("out").write_text("before this process attached\n")
    with JobDisplay("distill", submission) as display:
        for begins in ("2026-01-02T03:04:05", "2026-01-02T03:05:05"):
            display.show_state(*describe(replace(WAITS, begins=begins)))
        with submission.log("out").open("a") as log:
            log.write("a line\nhalf a ")
        display.refresh()
        with submission.log("out").open("a") as log:
            log.write("line\n")
        submission.log("err").write_text("submitit INFO - Starting\nan error\n")
        report = {"label": "distill", "total": 5, "n": 3, "unit": "step", "unit_scale": False, "postfix": {}}
        (tmp_path / "progress.json").write_text(json.dumps(report))
        display.refresh()
    stderr = capsys.readouterr().err
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert lines[:3] == [
        "distill: job 7 pending (Resources), starts about 2026-01-02T03:04:05",
        "a line",
        "half a line",
    ]
    assert "an error" in lines and "submitit" not in stderr and "before" not in stderr and "3/5" in stderr


class Terminal(StringIO):
    """A terminal: `lines` are what it shows after control characters have overwritten earlier text."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        shown, row, column = [""], 0, 0
        for piece in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if piece == "\x1b[A":
                row -= 1
            elif piece == "\r":
                column = 0
            elif piece == "\n":
                row, column = row + 1, 0
                shown += [""] * (row == len(shown))
            else:
                shown[row] = shown[row][:column].ljust(column) + piece + shown[row][column + len(piece) :]
                column += len(piece)
        return [line.rstrip() for line in shown if line.strip()]


def test_on_a_terminal_a_wait_that_ends_leaves_its_bar_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    submission = Submission(WAITS.name, WAITS.id, str(tmp_path))
    report = {"label": "distill", "total": 5, "n": 3, "unit": "step", "unit_scale": False, "postfix": {"loss": "0.5"}}
    with JobDisplay("distill", submission) as display:
        display.show_state(*describe(RUNS))
        (tmp_path / "progress.json").write_text(json.dumps(report))
        submission.log("err").write_text("a line\n")
        display.refresh()
        line, state, bar = terminal.lines()
        assert (line, state) == ("a line", "distill: job 7 running on node[1-2], requeued twice") and " 3/5 " in bar
    print("what follows", file=sys.stderr)
    line, bar, after = terminal.lines()
    assert (line, after) == ("a line", "what follows") and " 3/5 " in bar


def test_a_log_is_shown_line_by_line_however_its_bars_were_drawn(tmp_path, capsys):
    submission = Submission("distill-0.abcd", "7", str(tmp_path))
    display, log = JobDisplay("distill", submission), submission.log("err")
    with log.open("ab") as file:
        for written in (b"10%\r20%\rdone\nne", b"xt\r\nlast, without an end"):
            file.write(written)
            file.flush()
            display.refresh()
    assert capsys.readouterr().err == "done\nnext\n"
