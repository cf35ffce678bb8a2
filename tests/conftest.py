"""What several files look at: a finished smoke pipeline, an uninterrupted toy training, a tiny text encoder."""

import time
from pathlib import Path

import pytest
from torch import Tensor

import toy_training
from repository import clone, commit, dvc


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which `dvc repro` of the smoke profile has run to its end; read it, do not change it."""
    folder = clone(tmp_path_factory.mktemp("smoke") / "calm")
    start = time.perf_counter()
    dvc(folder, "repro")
    (folder / ".seconds").write_text(str(time.perf_counter() - start))
    commit(folder, "ran")
    return folder


@pytest.fixture
def copied(smoke: Path, tmp_path: Path) -> Path:
    """The finished smoke run with its work folders, free to be changed and broken."""
    import shutil

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
