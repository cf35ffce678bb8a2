"""The clusters that the tests share, taken down whatever happens, and what is made on them once.

Notable: `make test-slurm` runs two lanes (pytest-xdist), file by file, each with a cluster of its own: tests mostly
wait, for a time limit, for SLURM to give up a node, for torch to be imported.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from lab import Lab
from lab_host import ACCOUNTING, missing
from lanes import made_once
from repository import clone, commit, run
from runs import DISTILL, STARTED, STUDENT, Repository, at_work, kill


def pytest_configure() -> None:
    """After SIGTERM as after Ctrl-C every lane is told, and takes its clusters down."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGINT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the file that makes the repository which others copy, last those that would wait for it."""
    turns = {"test_end_to_end.py": 0, "test_fanout.py": 2, "test_two_at_once.py": 3}
    items.sort(key=lambda item: turns.get(item.path.name, 1))


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """What a failed test leaves is ended."""
    yield
    end_what_waits()


def pytest_sessionfinish() -> None:
    """Likewise what a fixture had started when the session was told to stop."""
    end_what_waits()


def end_what_waits() -> None:
    while STARTED:
        kill(STARTED.pop())


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster without accounting, which this process's SLURM commands mean."""
    cluster = Lab(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield from started(cluster)


@pytest.fixture(scope="session")
def lab_with_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Another cluster, whose sacct works; only what is given its `environment()` sees it."""
    if packages := missing(ACCOUNTING):
        pytest.skip(f"not installed: {packages}")
    yield from started(Lab(tmp_path_factory.mktemp("slurm-accounting"), accounting=True))


def started(cluster: Lab) -> Iterator[Lab]:
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def made(lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The smoke profile, made from nothing on a cluster with accounting, once; every lane has its copy."""

    def make_it(folder: Path) -> None:
        make(folder, request.getfixturevalue("lab_with_accounting"))

    return Repository(made_once("made", tmp_path_factory, FileLock, make_it), lab)


def make(folder: Path, accounting: Lab) -> None:
    """`dvc repro` of the smoke profile on a cluster with accounting, whose jobs are listed in accounted.txt."""
    clone(folder)
    asked = [f"distill.{key}={value}" for key, value in DISTILL.items()]
    run(sys.executable, "-m", "filmstill", "profile", "smoke", *asked, cwd=folder)
    commit(folder, "longer")
    with at_work(accounting):
        repository = Repository(folder, accounting)
        repository.configure()
        repro = repository.repro()
        assert repro.ends(900) == 0, repro.said[-3000:]
        (folder / "made.log").write_text(repro.said)
    commit(folder, "made")
    (folder / "accounted.txt").write_text("\n".join(completed(accounting)))


def completed(accounting: Lab) -> list[str]:
    """The names of the jobs that accounting knows, once it has been told that all completed: it is told late."""

    def told() -> list[str]:
        shown = ("--noheader", "--parsable2", "--allocations", "--format=State,JobName")
        jobs = [line.split("|", 1) for line in accounting.ask("sacct", *shown).splitlines()]
        return [name for _, name in jobs] if {state for state, _ in jobs} == {"COMPLETED"} else []

    return accounting.wait_until(told, 30)


@pytest.fixture(scope="module")
def undisturbed(made: Repository) -> str:
    return made.digest(STUDENT)


@pytest.fixture
def again(made: Repository, undisturbed: str) -> Iterator[Repository]:
    """The repository before its distillation; afterwards the student is the undisturbed one, and no job is left."""
    made.configure()
    shutil.rmtree(made.folder / ".work" / "distill", ignore_errors=True)
    (made.folder / STUDENT).unlink(missing_ok=True)
    yield made
    assert made.digest(STUDENT) == undisturbed
    assert made.jobs() == []
