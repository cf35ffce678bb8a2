"""Helpers for the process that makes one shard: input checks, progress, logs and exclusive use of the machine.

This module imports no torch: a shard's process takes its lock on the machine before it does anything slow, so that it
does not disturb a shard that is being timed.
"""

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filmstill
from filmstill.errors import FilmstillError
from filmstill.runtime.files import read_json, remove, sha256_of, write_json

if TYPE_CHECKING:
    from filmstill.params.load import Values

ERROR_LINES = 12  # at the end of a log, among which an exception's message begins
EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")  # the first line of its message


@contextmanager
def inputs_unchanged(stage: str, shard: Path) -> Iterator["Values"]:
    """Yield the parameters that the work folder's key is made of.

    Raises FilmstillError, before or after the block, where the current inputs are others. Snakemake removes the shard
    of a process that failed. After the block, the shard's proof is written.
    """
    from filmstill.params.load import Values  # here: it reads YAML, and a shard first waits for its turn
    from filmstill.work.graph import Inputs, inputs, refuse_edited_sources

    work = shard.parents[1]

    def check() -> None:
        found = inputs(stage, Values.read())
        refuse_edited_sources(found, filmstill.BEGAN)
        if found.key != work.name:
            raise FilmstillError(f"{stage}: its sources or params.yaml changed meanwhile; run `dvc repro` again")

    check()
    yield Inputs.read(work).values
    evidence = _evidence(shard)  # before the last look at the inputs: it may take long
    check()
    write_json(_proof(shard), evidence)


def is_proven(shard: Path) -> bool:
    """Whether a shard and the files beside it are those that its process has made, in this work folder."""
    with suppress(FilmstillError):  # no proof, or a damaged one
        return read_json(_proof(shard)) == _evidence(shard)
    return False


def remove_shard(shard: Path) -> None:
    """Remove a shard and every file of its process beside it; it is made again."""
    for suffix in (shard.suffix, ".progress", _proof(shard).suffix):
        remove(shard.with_suffix(suffix))
    remove(shard.with_suffix(""))


def _proof(shard: Path) -> Path:
    return shard.with_suffix(".proof")


def _evidence(shard: Path) -> dict[str, Any]:
    """A shard's name and work folder, and the SHA-256 of its files: itself, and the folder of its name."""
    beside = sorted(shard.with_suffix("").rglob("*"))
    files = (path for path in (shard, *beside) if path.is_file())
    digests = {str(path.relative_to(shard.parent)): sha256_of(path) for path in files}
    return {"shard": shard.stem, "work": shard.parents[1].name, "files": digests}


def report_done(shard: Path, count: int) -> None:
    """Write, for the progress bar, that `count` items of the shard are finished."""
    shard.with_suffix(".progress").write_text(str(count))


@contextmanager
def shared_machine(turn: Path | None) -> Iterator[Callable[[], None]]:
    """Hold a shared lock on the machine while the block runs; yields a function that makes the lock exclusive.

    Both wait: the shared lock until no other process holds the exclusive one, the exclusive lock until no other process
    holds any. turn: lock file, the same for all processes. None: no lock, for a SLURM job, which has its own cores.
    """
    if turn is None:
        yield lambda: None
        return
    with turn.open("a+") as lock:  # NFS: a shared lock needs read access, an exclusive one write access

        def alone() -> None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # NFS would deadlock two holders of the shared lock that both upgrade
            fcntl.flock(lock, fcntl.LOCK_EX)

        fcntl.flock(lock, fcntl.LOCK_SH)
        yield alone


def shard_log(work: Path, shard: str) -> Path:
    """Path of the log of a shard's process."""
    return work / "logs" / f"{shard}.log"


def last_line(log: Path) -> str | None:
    """The last line of a log, `no output` for an empty log, None where it does not exist."""
    if not log.is_file():
        return None
    lines = last_lines(log, 1)
    return lines[0].removeprefix("filmstill: ") if lines else "no output"


def last_error(log: Path) -> str | None:
    """The exception at the end of a log, on one line; else its last line. None where the log does not exist."""
    lines = last_lines(log, ERROR_LINES)
    begins = [number for number, line in enumerate(lines) if EXCEPTION.match(line)]
    return " ".join(" ".join(lines[begins[-1] :]).split())[:500] if begins else last_line(log)


def last_lines(log: Path, count: int) -> list[str]:
    """The last `count` lines of a log that are not blank; [] where it does not exist."""
    if not log.is_file():
        return []
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-count:]
