"""Fixtures that several files share: a finished smoke pipeline, an uninterrupted toy training, a tiny text encoder.

`make test` runs two workers (pytest-xdist), file by file, the longest files first. Tests marked `gpu` are skipped where
torch sees no CUDA device.
"""

import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

import toy_training
from lanes import made_once
from repository import clone, commit, dvc

LONG = (  # minutes
    "test_bad_input.py",
    "test_pipeline.py",
    "test_interruptions.py",
    "test_damage.py",
    "test_wan_mini.py",
    "test_kill.py",
    "test_distributed.py",
)


def pytest_configure() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in processes that a script starts in background


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` of the smoke profile has finished; tests must not change it."""
    return made_once("smoke", tmp_path_factory, FileLock, make_smoke)


def make_smoke(folder: Path) -> None:
    """Run the smoke profile in a new clone; the output of `dvc repro` is kept in the file `repro.log`."""
    clone(folder)
    (folder / "repro.log").write_text(dvc(folder, "repro").stdout)
    commit(folder, "ran")


@pytest.fixture
def copied(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the finished smoke run with its work folders, which a test may change and break."""
    return Path(shutil.copytree(smoke, tmp_path / "copy", symlinks=True))


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, list[float], dict[str, Tensor]]:
    """The uninterrupted toy training: its folder, losses and final state."""
    folder = tmp_path_factory.mktemp("whole")
    losses, state = toy_training.run(folder)
    return folder, losses, state.tensors()


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text encoder in both released layouts; tests must not change it."""
    from umt5_folders import release

    return release(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def artifact(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same text encoder, imported."""
    from umt5_folders import imported

    return imported(released, tmp_path_factory.mktemp("artifact"))


@pytest.fixture
def filmstill_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """caplog of filmstill's log from level INFO, also after a command in this process has called log_to_stderr."""
    logger = logging.getLogger("filmstill")
    propagates, level = logger.propagate, logger.level
    logger.propagate = True
    logger.setLevel(logging.INFO)
    yield caplog
    logger.propagate = propagates
    logger.setLevel(level)
