"""Shards as jobs on a real SLURM: the bytes of a local run, whatever happens to jobs and waiting processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import runs
from filmstill.cluster.slurm import tag
from filmstill.runtime.files import write_json
from filmstill.work.shard import _evidence
from lab import Job, Lab
from repository import environment
from runs import at_work

SECONDS = 120.0  # time limit of every wait in this file
DEFAULTS = {"cpus_per_task": 1, "memory_gb": 2, "time": "0:10:00"}


@dataclass
class Repository:
    """A repository whose teacher is made, and the expected bytes of its shards."""

    root: Path
    lab: Lab
    work: Path
    shards: dict[str, bytes]

    def configure(self, **resources: Any) -> None:
        """Write cluster.yaml. resources: what the stage requests beyond the defaults."""
        machine = {"executor": "slurm", "poll_seconds": 0.5, "defaults": DEFAULTS, "stages": {"ode_pairs": resources}}
        (self.root / "cluster.yaml").write_text(yaml.safe_dump(machine))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command, by default the stage as dvc runs it, in a new session."""
        return subprocess.Popen(
            command or (sys.executable, "stages/ode_pairs.py"),
            cwd=self.root,
            env=environment(self.root) | self.lab.environment() | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def jobs(self) -> list[Job]:
        """Every job of this work folder since the cluster's start, including those that ended, oldest first."""
        name = f"ode_pairs-{self.work.name}-{tag(self.root)}_"
        return sorted((job for job in self.lab.squeue() if job.name.startswith(name)), key=lambda job: job.id)

    def cancel(self) -> None:
        output = self.start(sys.executable, "-m", "filmstill", "cancel", "ode_pairs").communicate()[0]
        assert "cancelled 2 jobs (" in output, output

    def running(self, count: int, state: str = "R") -> list[Job]:
        """Wait until this many jobs are in this state (R running, PD pending); returns them."""

        def found() -> list[Job]:
            jobs = [job for job in self.jobs() if job.state == state]
            return jobs if len(jobs) == count else []

        return self.lab.wait_until(found, SECONDS)

    def made(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.work / "shards").glob("*.safetensors")}


@pytest.fixture(scope="module")
def prepared(made: runs.Repository) -> Iterator[Repository]:
    """The repository that was made on the cluster. Its shards equal a local run's (test_two_at_once.py)."""
    repository = Repository(made.folder, made.lab, made.work("ode_pairs"), {})
    repository.shards = repository.made()
    with at_work(made.lab):
        yield repository


@pytest.fixture
def repository(prepared: Repository) -> Iterator[Repository]:
    """The repository without shards and without live jobs of the stage."""
    shutil.rmtree(prepared.work.parent)
    prepared.configure()
    yield prepared
    for job in prepared.jobs():
        subprocess.run(["scancel", str(job.id)], check=False)


def test_a_shard_has_a_gpu_of_its_own_and_the_setup_that_was_asked_for(repository: Repository):
    before = len(repository.jobs())
    repository.configure(gpus_per_node=1, memory_gb=None, setup=["echo sees GPU $CUDA_VISIBLE_DEVICES, {not} a format"])
    running = repository.start()
    output = running.communicate()[0]
    assert running.returncode == 0, output
    assert len(repository.shards) == 2 and repository.made() == repository.shards
    assert [job.state for job in repository.jobs()[before:]] == ["CD", "CD"]
    gpus = {(repository.work / "logs" / f"pairs-000{n}.log").read_text().partition(",")[0] for n in range(2)}
    assert gpus == {"sees GPU 0", "sees GPU 1"}
    for job in repository.jobs()[before:]:  # no memory was requested: the cluster's DefMemPerCPU applies
        assert "MinMemoryCPU=1000M" in repository.lab.ask("scontrol", "show", "job", str(job.id))
    shown = " ".join(repository.start(sys.executable, "-m", "filmstill", "jobs").communicate()[0].split())
    assert re.search(r"ode_pairs \d+ jobs over, 2 shards made", shown), shown
    assert re.search(r"log of \d+ jobs: \.work/ode_pairs/\w+/logs/slurm", shown), shown


def test_killed_and_its_job_requeued_no_shard_is_made_twice(repository: Repository):
    before = len(repository.jobs())
    killed = repository.start(sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "ode_pairs")
    jobs = repository.running(2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    subprocess.run(["scontrol", "requeue", str(jobs[0].id)], check=True)
    again = repository.start(sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "ode_pairs")
    output = again.communicate()[0]
    assert again.returncode == 0, output
    after = repository.jobs()[before:]
    assert {job.id for job in after} == {job.id for job in jobs} and sorted(job.restarts for job in after) == [0, 1]
    assert repository.made() == repository.shards


def test_told_to_stop_its_jobs_go_on_and_who_cancels_them_wants_no_others(repository: Repository):
    before = len(repository.jobs())
    repository.lab.ask("scontrol", "update", "PartitionName=main", "State=DOWN")  # jobs stay pending
    try:
        running = repository.start()
        waiting = repository.running(2, "PD")
        running.send_signal(signal.SIGTERM)
        output = running.communicate()[0]
        assert running.returncode == 128 + signal.SIGTERM
        assert output.splitlines()[-1] == (
            "filmstill: ode_pairs: stopped; its jobs go on, `dvc repro` waits for them again, "
            "`python -m filmstill cancel ode_pairs` cancels them"
        )
        assert repository.running(2, "PD") == waiting
        repository.cancel()
        running = repository.start()
        repository.running(2, "PD")
        repository.cancel()
        output = running.communicate()[0]
    finally:
        repository.lab.ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert running.returncode == 2
    assert "of its jobs were cancelled" in output.splitlines()[-1] and "`dvc repro` makes the rest" in output
    assert [job.state for job in repository.jobs()[before:]] == ["CA"] * 4


def test_a_shard_refuses_edited_parameters_once_and_is_named(repository: Repository):
    kept = repository.work / "shards" / "pairs-0000.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(repository.shards[kept.name])
    write_json(kept.with_suffix(".proof"), _evidence(kept))
    before, params = len(repository.jobs()), repository.root / "params.yaml"
    as_it_was = params.read_text()
    running = repository.start()
    repository.running(1)
    params.write_text(as_it_was.replace("seed: 0", "seed: 1", 1))
    output = running.communicate()[0]
    params.write_text(as_it_was)
    assert running.returncode == 2
    assert output.splitlines()[-1] == (
        "filmstill: ode_pairs: shard pairs-0001 failed: ode_pairs: its sources or params.yaml changed meanwhile; run "
        f"`dvc repro` again (log: {repository.work.relative_to(repository.root)}/logs/pairs-0001.log); finished "
        "shards are kept"
    )
    assert [job.state for job in repository.jobs()[before:]] == ["F"]
    assert repository.made() == {kept.name: repository.shards[kept.name]}
