"""Work folders: where a stage works, who holds it, and how its result is published.

A stage works in `.work/<stage>/<key>/` (work/graph.py makes the key), under a lock that ends with its process.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filmstill.errors import FilmstillError, writing_failed
from filmstill.runtime.files import copy_tree

WORK = Path(".work")


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an flock on `path`; says `waiting` once when another process holds it. It ends with the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise writing_failed(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise FilmstillError(
                f"{path}: its file system keeps no locks (flock: {error.strerror}); put .work on one that does: "
                "scratch in cluster.yaml, or a mount option (Lustre's flock)"
            ) from None
        os.set_inheritable(file.fileno(), True)  # a Snakemake that outlives its stage still holds the folder
        yield


def publish(made: Path, target: Path) -> None:
    """Put a finished file or folder at `target` by rename; the work folder keeps its own links until it is pruned."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.*.tmp"):  # a publication that was killed
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


def _link(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
