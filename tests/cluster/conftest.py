"""The clusters that the tests share: brought up once, taken down whatever happens."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import lab_host
import pytest
from lab import Lab
from lab_host import ACCOUNTING, missing
from runs import DISTILL, Repository

from repository import clone, commit, run


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster without accounting; this process's SLURM commands and /etc/slurm/slurm.conf mean it."""
    cluster = Lab(tmp_path_factory.mktemp("slurm"), system=True)
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # pytest tears down after Ctrl-C, not after SIGTERM
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@contextmanager
def at_work(cluster: Lab) -> Iterator[None]:
    """While the block runs, this process's SLURM commands and /etc/slurm/slurm.conf mean this cluster."""
    lab_host.point(cluster.conf)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(cluster.conf))
            yield
    finally:
        lab_host.unpoint(cluster.conf)


@pytest.fixture(scope="session")
def made(lab: Lab, lab_with_accounting: Lab, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The smoke profile, made from nothing on the cluster with accounting; what comes after happens on the other."""
    folder = clone(tmp_path_factory.mktemp("made") / "repository")
    asked = [f"distill.{key}={value}" for key, value in DISTILL.items()]
    run(sys.executable, "-m", "filmstill", "profile", "smoke", *asked, cwd=folder)
    commit(folder, "longer")
    with at_work(lab_with_accounting):
        repository = Repository(folder, lab_with_accounting)
        repository.configure()
        repro = repository.repro()
        assert repro.ends(900) == 0, repro.said[-3000:]
    commit(folder, "made")
    return Repository(folder, lab)
