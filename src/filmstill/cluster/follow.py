"""Wait for a job, showing its state in one line, rank 0's log above it and a progress bar below it.

The job's files are read every second; SLURM is queried every `poll_seconds`. A controller that does not answer is
waited for. A wait that is stopped leaves the job running.
"""

import logging
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from filmstill.cluster import slurm
from filmstill.cluster.job import end_record, has_started
from filmstill.cluster.job_checkout import cancel_with_experiment
from filmstill.cluster.records import Progress, read_progress
from filmstill.cluster.submit import Submission
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.progress import progress
from filmstill.work.stage import dvc_parent, has_exited

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
EXIT_SECONDS = 60.0  # for a job to exit after it has recorded its end; then it is cancelled


def follow(stage: str, submission: Submission, poll_seconds: float) -> slurm.QueuedJob | None:
    """Wait until the job is over; returns its last state in SLURM, None where SLURM does not know it.

    Raises Interrupted when a signal stops the wait or the parent dvc process has exited: the job goes on, except in the
    folder of an experiment, which DVC then removes. Raises FilmstillError where the job cannot start.
    """
    try:
        with JobDisplay(stage, submission) as display:
            return _wait_until_over(submission, poll_seconds, display, dvc_parent())
    except (Interrupted, KeyboardInterrupt) as error:
        subject, work = f"job {submission.id}", Path(submission.folder).parents[1]
        what = cancel_with_experiment(stage, work, f"{subject} is", lambda: slurm.queued(submission.name)) or (
            f"{subject} goes on without this process; `dvc repro` attaches to it, `python -m filmstill cancel {stage}` "
            "cancels it"
        )
        number = error.signal if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(f"{stage}: {what}", number) from None


def _wait_until_over(
    submission: Submission, poll_seconds: float, display: "JobDisplay", parent: psutil.Process | None
) -> slurm.QueuedJob | None:
    job, next_query, deadline = None, 0.0, float("inf")
    while True:
        display.refresh()
        now = time.monotonic()
        is_pending = job is not None and job.state == "PENDING"  # it was requeued: the record is an earlier start's
        if is_pending or end_record(Path(submission.folder)) is None:
            deadline = float("inf")
        else:
            deadline = min(deadline, now + EXIT_SECONDS)
            next_query = min(next_query, now)  # the job is about to exit
        if now >= next_query:
            next_query = now + poll_seconds
            try:
                job = find_job(submission)
            except slurm.Unreachable as error:
                display.show_state("may go on: SLURM's controller does not answer; waiting for it", f" ({error})")
            else:
                display.show_state(*describe(job))
                if job is None or not job.alive:
                    display.refresh()
                    return job
                _stop_if_it_cannot_start(submission, job)
        if now >= deadline:
            with suppress(FilmstillError, slurm.Unreachable):
                slurm.cancel(submission.id)
            return job
        if has_exited(parent):
            raise Interrupted("the parent dvc process exited", signal.SIGTERM)
        time.sleep(REFRESH_SECONDS)


def _stop_if_it_cannot_start(submission: Submission, job: slurm.QueuedJob) -> None:
    """Cancel a job whose pickle was removed before it started, and raise FilmstillError: submitit would wait for it."""
    if job.state == "COMPLETING" or submission.pickle.exists():
        return
    if job.state != "PENDING" and has_started(Path(submission.folder)):
        return
    with suppress(FilmstillError, slurm.Unreachable):
        slurm.cancel(submission.id)
    raise FilmstillError(
        f"{submission.pickle}: was removed, and job {submission.id} cannot start without it; the job is cancelled, run "
        "`dvc repro` again, which submits another"
    )


def find_job(submission: Submission) -> slurm.QueuedJob | None:
    """The submission's job in SLURM; None where SLURM does not know it, or reuses its id for another job.

    Raises slurm.Unreachable.
    """
    job = slurm.find(submission.id)
    return job if job is not None and job.name == submission.name else None


def describe(job: slurm.QueuedJob | None) -> tuple[str, str]:
    """(state of a job with its reason or nodes and number of requeues, when a pending one is estimated to start)."""
    if job is None:
        return "is unknown to SLURM", ""
    if job.is_held:
        return f"is held ({job.reason}): `scontrol release {job.id}` lets it go on", ""
    where = f" ({job.waits_for})" if job.state == "PENDING" else f" on {job.nodes}" if job.nodes else ""
    often = f", requeued {_times(job.restarts)}" if job.restarts else ""
    start = f", starts about {job.begins}" if job.state == "PENDING" and job.begins else ""
    return job.state.lower() + where + often, start


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


class JobDisplay:
    """What a wait shows on stderr: the state of the job, the lines of its log, its progress bar."""

    def __init__(self, stage: str, submission: Submission) -> None:
        self.label, self.folder = f"{stage}: job {submission.id}", Path(submission.folder)
        # Bytes read of each log. What was in it before is not shown: this process may attach to a job that runs.
        self.read = {path: path.stat().st_size if path.exists() else 0 for path in map(submission.log, ("out", "err"))}
        self.line = tqdm(bar_format="{desc}", leave=False, disable=not sys.stderr.isatty())
        self.bar: Any = None
        self.drawn: tuple[str, int] | None = None
        self.shown_state = ""

    def __enter__(self) -> "JobDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            if not self.line.disable:
                self.bar.clear()  # else tqdm leaves it in the place of the state, and once more below
            self.bar.close()
        self.line.close()

    def show_state(self, words: str, detail: str = "") -> None:
        """Show the state: redrawn in place on a terminal, elsewhere logged when `words` changes."""
        self.line.set_description_str(f"{self.label} {words}{detail}")
        if self.line.disable and words != self.shown_state:
            log.info("%s %s%s", self.label, words, detail)
        self.shown_state = words

    def refresh(self) -> None:
        """Show what the job has printed and reported since the last call."""
        for path, start in self.read.items():
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(start)
                complete, newline, _ = file.read().rpartition(b"\n")
                self.read[path] += len(complete + newline)
                for line in complete.split(b"\n") if newline else ():
                    shown = line.rstrip(b"\r").rpartition(b"\r")[2]  # the last state of a bar that was redrawn
                    if not shown.startswith(b"submitit "):  # submitit's own messages
                        self._print(shown.decode(errors="replace") + "\n")
        if (report := read_progress(self.folder)) is not None:
            self._draw(report)

    def _print(self, line: str) -> None:
        if self.line.disable:  # tqdm.write would redraw the bar for every line
            print(line, file=sys.stderr, end="", flush=True)
        else:
            tqdm.write(line, file=sys.stderr, end="")

    def _draw(self, report: Progress) -> None:
        if self.drawn != (report.label, report.total):
            if self.bar is not None:
                self.bar.close()
            self.bar = progress(report.label, report.total, report.n, report.unit)
            self.bar.unit_scale, self.drawn = report.unit_scale, (report.label, report.total)
        self.bar.set_postfix(report.postfix, refresh=False)
        self.bar.update(report.n - self.bar.n)
