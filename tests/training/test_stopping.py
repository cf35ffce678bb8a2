"""Signals to the training loop: what is saved, and whether training stops or continues."""

import os
import signal
from pathlib import Path

import pytest

from filmstill.errors import Interrupted
from filmstill.runtime.job_folder import JOB, START, is_superseded
from filmstill.training.stopping import deferred_signals
from toy_training import STEPS, assert_same_end, last, run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_in_hand_and_stops(tmp_path, whole, number):
    handler, ran = signal.getsignal(number), []

    def hook(index: int, scalars: dict[str, float]) -> None:
        ran.append(index)
        if index == 7 and len(ran) == 8:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped after step 8") as stopped:
        run(tmp_path, hook)
    assert stopped.value.signal == number
    assert signal.getsignal(number) is handler
    assert last(tmp_path).parent.name == "step-0000008"
    losses, state = run(tmp_path, hook)
    assert ran == list(range(STEPS))  # no step twice
    assert_same_end(tmp_path, losses, state, whole)


def test_a_signal_while_the_sheet_is_drawn_loses_nothing(tmp_path):
    """The sheet is drawn after the loop polled for signals; the step that the message names must be in a checkpoint."""
    sent = []

    def draw_sheet(path: Path) -> None:
        if not sent:
            sent.append(path)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, every=7, draw_sheet=draw_sheet)
    saved = int(last(tmp_path).parent.name.removeprefix("step-"))
    assert saved > 7
    assert f"stopped after step {saved}" in str(stopped.value)


def test_a_signal_in_the_last_step_is_no_reason_to_fail(tmp_path, whole):
    def hook(index: int, scalars: dict[str, float]) -> None:
        if index == STEPS - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    losses, state = run(tmp_path, hook)
    assert_same_end(tmp_path, losses, state, whole)


def test_a_signal_after_the_last_step_is_left_to_the_caller():
    with pytest.raises(KeyboardInterrupt), deferred_signals() as poll_signals:
        poll_signals()
        signal.raise_signal(signal.SIGINT)


def test_ranks_that_slurm_has_replaced_stop_silently(tmp_path, monkeypatch):
    """SLURM restarts a job when it loses contact with a node; processes that still run there must not write too."""
    job = tmp_path / "jobs" / "0001"
    job.mkdir(parents=True)
    (job / START).write_text("1")
    assert not is_superseded()  # no job
    monkeypatch.setenv(JOB, str(job))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not is_superseded()
    (job / START).write_text("")  # read while it is written
    assert not is_superseded()
    (job / START).write_text("2")
    assert is_superseded()
    (job / START).write_text("1")
    (tmp_path / "jobs" / "0002").mkdir()
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with deferred_signals() as poll_signals:
        poll_signals()
    assert left == [1]


def test_a_jobs_sigterm_saves_and_goes_on(tmp_path, whole, monkeypatch):
    """A kill may follow it: the step during which it arrived is saved first."""
    job = tmp_path / "jobs" / "0001"
    job.mkdir(parents=True)
    (job / START).write_text("0")
    monkeypatch.setenv(JOB, str(job))
    seen = []

    def hook(index: int, scalars: dict[str, float]) -> None:
        if index == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append([path.name for path in (tmp_path / "checkpoints").glob("step-*")])

    losses, state = run(tmp_path, hook)
    assert "step-0000008" in seen[8]
    assert (job / "clean-exit-0").exists()  # the kill that follows is no loss
    assert_same_end(tmp_path, losses, state, whole)
