"""Shared SLURM clusters, which are always taken down, and the repository that is made on one of them once.

`make test-slurm` runs two lanes (pytest-xdist), file by file, each with its own cluster. Tests mostly wait: for a time
limit, for SLURM to give up a node, for torch to be imported.
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
    """On SIGTERM, send SIGINT to every lane, as Ctrl-C does: each lane then takes its clusters down."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGINT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first the file that makes the repository which others copy, last the files that would wait for it."""
    order = {"test_end_to_end.py": 0, "test_fanout.py": 2, "test_two_at_once.py": 3}
    items.sort(key=lambda item: order.get(item.path.name, 1))


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Kill the `dvc repro` processes that a failed test leaves behind."""
    yield
    kill_started()


def pytest_sessionfinish() -> None:
    """Kill those that a fixture had started when the session was interrupted."""
    kill_started()


def kill_started() -> None:
    while STARTED:
        kill(STARTED.pop())


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster without accounting, which this process's SLURM commands use."""
    cluster = Lab(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield from started(cluster)


@pytest.fixture(scope="session")
def lab_with_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Another cluster, with a working sacct; only commands that get its `environment()` use it."""
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
    """The smoke profile, made once on a cluster with accounting; every lane has its own copy."""

    def make_it(folder: Path) -> None:
        make(folder, request.getfixturevalue("lab_with_accounting"))

    return Repository(made_once("made", tmp_path_factory, FileLock, make_it), lab)


def make(folder: Path, accounting: Lab) -> None:
    """Run `dvc repro` of the smoke profile on a cluster with accounting, and list its jobs in accounted.txt."""
    clone(folder)
    changed = [f"distill.{key}={value}" for key, value in DISTILL.items()]
    run(sys.executable, "-m", "filmstill", "profile", "smoke", *changed, cwd=folder)
    commit(folder, "longer")
    with at_work(accounting):
        repository = Repository(folder, accounting)
        repository.configure()
        repro = repository.repro()
        assert repro.ends(900) == 0, repro.output[-3000:]
        (folder / "made.log").write_text(repro.output)
    commit(folder, "made")
    (folder / "accounted.txt").write_text("\n".join(completed(accounting)))


def completed(accounting: Lab) -> list[str]:
    """Names of the jobs in accounting, once all are COMPLETED there: accounting lags behind the controller."""

    def names() -> list[str]:
        shown = ("--noheader", "--parsable2", "--allocations", "--format=State,JobName")
        jobs = [line.split("|", 1) for line in accounting.ask("sacct", *shown).splitlines()]
        return [name for _, name in jobs] if {state for state, _ in jobs} == {"COMPLETED"} else []

    return accounting.wait_until(names, 30)


@pytest.fixture(scope="module")
def undisturbed(made: Repository) -> str:
    """SHA-256 of the student of the undisturbed run."""
    return made.digest(STUDENT)


@pytest.fixture
def again(made: Repository, undisturbed: str) -> Iterator[Repository]:
    """The repository without its distillation; checks afterwards that the student is unchanged and no job is left."""
    made.configure()
    shutil.rmtree(made.folder / ".work" / "distill", ignore_errors=True)
    (made.folder / STUDENT).unlink(missing_ok=True)
    yield made
    assert made.digest(STUDENT) == undisturbed
    assert made.jobs() == []
