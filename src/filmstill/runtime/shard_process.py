"""What the process that makes one shard owes the stage: the same inputs, and how far it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
