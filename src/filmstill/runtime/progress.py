"""Progress of a long loop: a bar on a terminal, occasional lines in a log file, a JSON file in a cluster job."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from filmstill.errors import FilmstillError
from filmstill.runtime.files import write_json
from filmstill.runtime.job_folder import JOB, REPORT

SECONDS_BETWEEN_LOG_LINES = 15
SECONDS_BETWEEN_WRITES = 1.0


def progress(label: str, total: int | None, done: float = 0, unit: str = "step") -> "tqdm | Report":
    """A context manager whose `update()` advances a bar on stderr or, in a cluster job, the job's progress file.

    total: None for a loop without end.
    """
    if JOB in os.environ and total is not None:
        return Report(label, total, done, unit)
    on_terminal = sys.stderr.isatty()
    interval = 0.2 if on_terminal else SECONDS_BETWEEN_LOG_LINES
    return tqdm(
        desc=f"{label:<10}", total=total, initial=done, unit=unit, mininterval=interval, dynamic_ncols=on_terminal
    )


class Report:
    """The part of tqdm's interface used here; rank 0 writes its state to the job's folder, where `follow` reads it."""

    def __init__(self, label: str, total: int, done: float, unit: str) -> None:
        self.label, self.total, self.n, self.unit = label, total, done, unit
        self.unit_scale = False
        self.postfix: dict[str, str] = {}
        self.written = float("-inf")

    def __enter__(self) -> "Report":
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def update(self, count: float = 1) -> None:
        self.n += count
        if time.monotonic() - self.written >= SECONDS_BETWEEN_WRITES:
            self._write()

    def set_postfix(self, refresh: bool = True, **values: str) -> None:
        self.postfix = values

    def _write(self) -> None:
        facts = ("label", "total", "n", "unit", "unit_scale", "postfix")
        with suppress(FilmstillError):  # a full disk is reported by the next checkpoint
            if os.environ.get("RANK", "0") == "0":
                write_json(Path(os.environ[JOB]) / REPORT, {name: getattr(self, name) for name in facts})
        self.written = time.monotonic()
