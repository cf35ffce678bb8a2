"""Work folders: their locks, and how a finished result is published.

A stage works in `.work/<stage>/<key>/` (work/graph.py computes the key) under a lock that its process holds.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filmstill.errors import FilmstillError, writing_failed
from filmstill.runtime.files import copy_tree

log = logging.getLogger(__name__)

WORK = Path(".work")


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive flock on `path` while the block runs; the system releases it when the process ends.

    Logs `waiting` once and waits where another process holds the lock. Raises FilmstillError where the file cannot be
    written or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise writing_failed(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise FilmstillError(
                f"{path}: its file system has no locks (flock: {error.strerror}); put .work on one that does: "
                "scratch in cluster.yaml, or a mount option (Lustre's flock)"
            ) from None
        os.set_inheritable(file.fileno(), True)  # a Snakemake process that outlives its stage keeps the lock
        yield


def publish(made: Path, target: Path) -> None:
    """Put a finished file or folder at `target` by a rename.

    A file replaces the old one atomically; an old folder is removed just before the rename.

    The work folder keeps hard links to the same files until it is pruned. Raises FilmstillError where `made` does not
    exist or `target` cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.*.tmp"):  # left by a publication that was killed
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        if made.is_dir():
            copy_tree(made, temporary, _link)
            shutil.rmtree(target, ignore_errors=True)
        else:
            _link(made, temporary)
        temporary.replace(target)
    except FileNotFoundError:
        raise FilmstillError(f"{made}: the stage did not make it, but dvc.yaml lists {target}") from None
    except OSError as error:
        raise writing_failed(target, error) from error


def collect(shards: list[Path], folder: Path) -> list[Path]:
    """Hard-link finished shards into `folder`; returns their new paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        publish(shard, folder / shard.name)
    return [folder / shard.name for shard in shards]


def _link(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # `target` is on another file system, or on one without hard links
        shutil.copyfile(source, target)
