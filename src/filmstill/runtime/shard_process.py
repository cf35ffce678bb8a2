"""What the process that makes one shard owes the others: the same inputs, how far it is, whose turn it is."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filmstill.cluster.config import LOCAL, read_cluster
from filmstill.errors import FilmstillError
from filmstill.runtime.workbench import inputs


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


class Turn:
    """The machine, shared with the other shards of the stage until this one asks for it alone; kept until it ends.

    For shards that are timed: they start and import side by side, and none does anything while another's clock runs.
    Jobs of SLURM's have their cores, or by `exclusive` of cluster.yaml their node, and wait for nobody.
    """

    def __init__(self, shard: Path) -> None:
        self._lock = (shard.parents[1] / "turn").open("w") if read_cluster().executor == LOCAL else None
        self._wait(fcntl.LOCK_SH)

    def alone(self) -> None:
        """Wait until no other shard of the stage is at work here; those that start later wait for this one."""
        self._wait(fcntl.LOCK_EX)

    def _wait(self, kind: int) -> None:
        if self._lock:
            fcntl.flock(self._lock, kind)
