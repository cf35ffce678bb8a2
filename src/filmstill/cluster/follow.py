"""Wait for a job: one line of state, its first process's log, a bar.

Notable: what the job writes is looked at every second, SLURM is asked every `poll_seconds`; a controller that does not
answer is waited for; a wait that is stopped leaves the job running.
"""

import json
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from filmstill.cluster import slurm
from filmstill.cluster.job import ended
from filmstill.cluster.submit import Submission
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.job_folder import REPORT
from filmstill.runtime.progress import progress
from filmstill.work.stage import dvc_parent, has_exited

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_END = 60.0  # that a job has after its end is on record


def follow(stage: str, submission: Submission, poll_seconds: float) -> slurm.Job | None:
    """Wait until the job is over; returns what SLURM last knew of it, None when nothing.

    Raises Interrupted when told to stop, or when the dvc that runs this stage has gone: the job goes on.
    """
    try:
        with Board(stage, submission) as board:
            return _over(submission, poll_seconds, board, dvc_parent())
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"{stage}: job {submission.id} goes on without this process; `dvc repro` attaches to it, "
            f"`python -m filmstill cancel {stage}` cancels it",
            error.signal if isinstance(error, Interrupted) else signal.SIGINT,
        ) from None


def _over(
    submission: Submission, poll_seconds: float, board: "Board", parent: psutil.Process | None
) -> slurm.Job | None:
    job, ask, deadline = None, 0.0, float("inf")
    while True:
        board.look()
        now = time.monotonic()
        waits = job is not None and job.state == "PENDING"  # somebody has put it back: its end is an earlier start's
        if waits or ended(Path(submission.folder)) is None:
            deadline = float("inf")
        else:
            deadline = min(deadline, now + SECONDS_TO_END)
            ask = min(ask, now)  # it is over any moment now
        if now >= ask:
            ask = now + poll_seconds
            try:
                job = known(submission)
            except slurm.Unreachable as error:
                board.say("may go on: SLURM's controller does not answer; waiting for it", f" ({error})")
            else:
                board.say(*state(job))
                if job is None or not job.alive:
                    board.look()
                    return job
        if now >= deadline:
            with suppress(FilmstillError, slurm.Unreachable):
                slurm.cancel(submission.id)
            return job
        if has_exited(parent):
            raise Interrupted("dvc has gone", signal.SIGTERM)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def known(submission: Submission) -> slurm.Job | None:
    """What SLURM knows of the job; None also when its id is another job's by now. Raises slurm.Unreachable."""
    job = slurm.find(submission.id)
    return job if job is not None and job.name == submission.name else None


def state(job: slurm.Job | None) -> tuple[str, str]:
    """Pending with its reason or running where, and how often requeued; and, of one that waits, when it may start."""
    if job is None:
        return "is unknown to SLURM", ""
    if job.is_held:
        return f"is held ({job.reason}): `scontrol release {job.id}` lets it go on", ""
    where = f" ({job.waits_for})" if job.state == "PENDING" else f" on {job.nodes}" if job.nodes else ""
    often = f", requeued {job.restarts} times" if job.restarts else ""
    start = f", starts about {job.begins}" if job.state == "PENDING" and job.begins else ""
    return job.state.lower() + where + often, start


class Board:
    """What a wait shows on stderr: the line of state, the log above it, the bar below it."""

    def __init__(self, stage: str, submission: Submission) -> None:
        self.label, self.report = f"{stage}: job {submission.id}", Path(submission.folder) / REPORT
        # Whoever attaches sees what is new; of a job that has not begun that is all.
        self.read = {log: log.stat().st_size if log.exists() else 0 for log in map(submission.log, ("out", "err"))}
        self.line = tqdm(bar_format="{desc}", leave=False, disable=not sys.stderr.isatty())
        self.bar: Any = None
        self.drawn: tuple[str, int] | None = None
        self.said = ""

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            if not self.line.disable:
                self.bar.clear()  # tqdm leaves it where the line of state was, and would leave it below as well
            self.bar.close()
        self.line.close()

    def say(self, words: str, detail: str = "") -> None:
        """The line of state: redrawn on a terminal, elsewhere printed when its words are new."""
        self.line.set_description_str(f"{self.label} {words}{detail}")
        if self.line.disable and words != self.said:
            print(f"{self.label} {words}{detail}", file=sys.stderr, flush=True)
        self.said = words

    def look(self) -> None:
        """Show what the job has printed and done since the last look."""
        for log, start in self.read.items():
            with suppress(FileNotFoundError), log.open("rb") as file:
                file.seek(start)
                whole, newline, _ = file.read().rpartition(b"\n")
                self.read[log] += len(whole + newline)
                for line in whole.split(b"\n") if newline else ():
                    shown = line.rstrip(b"\r").rpartition(b"\r")[2]  # of a bar that was redrawn, the last state
                    if not shown.startswith(b"submitit "):  # its own notes
                        self._print(shown.decode(errors="replace") + "\n")
        with suppress(OSError, ValueError):  # it is being replaced, on another machine
            self._draw(**json.loads(self.report.read_text()))

    def _print(self, line: str) -> None:
        if self.line.disable:  # tqdm would draw the bar again for every line
            print(line, file=sys.stderr, end="", flush=True)
        else:
            tqdm.write(line, file=sys.stderr, end="")

    def _draw(self, label: str, total: int, n: float, unit: str, unit_scale: bool, postfix: dict[str, str]) -> None:
        if self.drawn != (label, total):
            if self.bar is not None:
                self.bar.close()
            self.bar, self.drawn = progress(label, total, n, unit), (label, total)
            self.bar.unit_scale = unit_scale
        self.bar.set_postfix(postfix, refresh=False)
        self.bar.update(n - self.bar.n)
