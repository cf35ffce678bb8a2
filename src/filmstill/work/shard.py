"""The process that makes one shard: its inputs, its progress, its log, and its turn on the machine.

Light to import: a shard's process waits for its turn before it takes time of the one that is being timed.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.work.graph import inputs


@contextmanager
def inputs_unchanged(stage: str, shard: Path) -> Iterator[None]:
    """In a shard's process: refuse to make it from other inputs than those its work folder is named by.

    Checked before and after; Snakemake removes the shard of a process that failed.
    """

    def check() -> None:
        if inputs(stage).key != shard.parents[1].name:
            raise FilmstillError(f"{stage}: its sources or params.yaml changed meanwhile; run `dvc repro` again")

    check()
    yield
    check()


def report_done(shard: Path, count: int) -> None:
    """Called by a shard's process: `count` items of it are finished. A hint for the bar, not a record."""
    shard.with_suffix(".progress").write_text(str(count))


@contextmanager
def shared_machine(turn: Path | None) -> Iterator[Callable[[], None]]:
    """Wait until nobody has the machine alone; what this yields waits until the rest of the block has.

    turn: a file that all of them name; None: a job of SLURM's, which has its cores, or its node, and waits for nobody.
    """
    if turn is None:
        yield lambda: None
        return
    with turn.open("a+") as lock:  # NFS gives a shared lock only to who may read, an exclusive one to who may write

        def alone() -> None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # of two that share it and ask for it alone, NFS would serve neither
            fcntl.flock(lock, fcntl.LOCK_EX)

        fcntl.flock(lock, fcntl.LOCK_SH)
        yield alone


def log_of(work: Path, shard: str) -> Path:
    """Of a shard's process."""
    return work / "logs" / f"{shard}.log"


def last_line(log: Path) -> str | None:
    """What a log ends with; None where there is none."""
    if not log.is_file():
        return None
    lines = last_lines(log, 1)
    return lines[0].removeprefix("filmstill: ") if lines else "no output"


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that say anything; none where there is no log."""
    if not log.is_file():
        return []
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-count:]
