"""One smoke run for all tests that look at a finished pipeline."""

import time
from pathlib import Path

import pytest

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
