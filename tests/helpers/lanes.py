"""Tests in several lanes at once (`pytest -n 2`): what is made once for all, what is timed while the others rest."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from filelock import ReadWriteLock


def beside_others(config: pytest.Config) -> AbstractContextManager[object]:
    """Around a test: waits where another lane is `alone`."""
    return lock(config).read_lock()


@contextmanager
def alone(config: pytest.Config) -> Iterator[None]:
    """Within a test: waits until no other lane runs one, and lets none begin."""
    machine = lock(config)
    machine.release()
    try:
        with machine.write_lock():
            yield
    finally:
        machine.acquire_read()


def lock(config: pytest.Config) -> ReadWriteLock:
    """One for all lanes of this checkout: its cache folder is theirs too."""
    return ReadWriteLock(config.cache.mkdir("lanes") / "machine.db")


def made_once(
    name: str,
    factory: pytest.TempPathFactory,
    turn: Callable[[Path], AbstractContextManager[object]],
    make: Callable[[Path], object],
) -> Path:
    """This lane's copy of what `make` makes at a path where nothing is yet, once for all lanes.

    turn: given a file for a lock, lets one lane at a time make or look for it.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once" / name
    done = shared.with_name(f"{name}.done")
    shared.parent.mkdir(exist_ok=True)
    with turn(shared.with_name(f"{name}.lock")):
        if not done.exists():
            shutil.rmtree(shared, ignore_errors=True)  # of a lane that failed
            make(shared)
            done.touch()
    return Path(shutil.copytree(shared, factory.mktemp(name) / name, symlinks=True))
