"""What several files look at: a finished smoke pipeline, an uninterrupted toy training, a tiny text encoder.

Notable: `make test` runs two lanes (pytest-xdist), file by file, the longest first.
"""

import logging
import shutil
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from torch import Tensor

import lanes
import toy_training
from repository import clone, commit, dvc

LONG = ("test_bad_input.py", "test_pipeline.py", "test_wan_mini.py", "test_kill.py", "test_distributed.py")  # minutes


def pytest_configure() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts in the background


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with lanes.beside_others(item.config):
        return (yield)


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine, while the test is timed."""
    with lanes.alone(request.config):
        yield


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` of the smoke profile has run to its end; read it, do not change it."""
    return lanes.made_once("smoke", tmp_path_factory, lambda _: lanes.alone(request.config), make_smoke)


def make_smoke(folder: Path) -> None:
    """Make the smoke profile, and note in .seconds how long that took."""
    clone(folder)
    start = time.perf_counter()
    dvc(folder, "repro")
    (folder / ".seconds").write_text(str(time.perf_counter() - start))
    commit(folder, "ran")


@pytest.fixture
def copied(smoke: Path, tmp_path: Path) -> Path:
    """The finished smoke run with its work folders, free to be changed and broken."""
    return Path(shutil.copytree(smoke, tmp_path / "copy", symlinks=True))


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, list[float], dict[str, Tensor]]:
    """The uninterrupted run: its folder, losses and final state."""
    folder = tmp_path_factory.mktemp("whole")
    losses, state = toy_training.run(folder)
    return folder, losses, state.tensors()


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text encoder in both released layouts; read it, do not change it."""
    from umt5_folders import release

    return release(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def artifact(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, imported."""
    from umt5_folders import imported

    return imported(released, tmp_path_factory.mktemp("artifact"))


@pytest.fixture
def filmstill_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What filmstill logs from level INFO on, whether or not a command in this process sends it to stderr too."""
    logger = logging.getLogger("filmstill")
    propagates, level = logger.propagate, logger.level
    logger.propagate = True
    logger.setLevel(logging.INFO)
    yield caplog
    logger.propagate = propagates
    logger.setLevel(level)
