"""Tests in several lanes (`pytest -n 2`): what is made once for all of them."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest


def made_once(
    name: str,
    factory: pytest.TempPathFactory,
    turn: Callable[[Path], AbstractContextManager[object]],
    make: Callable[[Path], object],
) -> Path:
    """This lane's copy of a folder that `make` creates once for all lanes.

    make: called with the path to create. turn: maps a lock file to a context manager that admits one lane at a time.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once" / name
    done = shared.with_name(f"{name}.done")
    shared.parent.mkdir(exist_ok=True)
    with turn(shared.with_name(f"{name}.lock")):
        if not done.exists():
            shutil.rmtree(shared, ignore_errors=True)  # left by a lane that failed
            make(shared)
            done.touch()
    return Path(shutil.copytree(shared, factory.mktemp(name) / name, symlinks=True))
