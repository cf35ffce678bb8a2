"""What the process that makes one shard owes the others: the same inputs, how far it is, whose turn it is."""

import fcntl
from collections.abc import Callable, Iterator
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


@contextmanager
def shared_machine(shard: Path) -> Iterator[Callable[[], object]]:
    """Share this machine with the stage's other shards; what it yields waits until the rest of the block has it alone.

    For shards that are timed: they start and import side by side, and none does anything while another's clock runs.
    Jobs of SLURM's have their cores, or by `exclusive` of cluster.yaml their node, and wait for nobody.
    """
    if read_cluster().executor != LOCAL:
        yield lambda: None
        return
    with (shard.parents[1] / "turn").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lambda: fcntl.flock(lock, fcntl.LOCK_EX)
