"""A repository whose stages run on SLURM: start a `dvc repro`, disturb it at a chosen moment, check the result."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

import lab_host
from lab import Lab
from repository import environment, run

STUDENT, INIT = "data/distill/student.safetensors", "data/ode_init/init.safetensors"
TEACHER = "data/teacher/teacher.safetensors"
ONLY = ("--force", "--single-item", "distill")
DISTILL = {"steps": 24, "batch": 2, "critic_updates": 1}  # short steps, enough of them for several disturbances
TIMEOUT_SECONDS = 240.0  # s, for a stage on a busy machine
STARTED: list[subprocess.Popen] = []  # every `dvc repro` of a test; one left behind would hold a lock


@contextmanager
def at_work(cluster: Lab) -> Iterator[None]:
    """While the block runs, this process's SLURM commands and /etc/slurm/slurm.conf refer to this cluster."""
    lab_host.point(cluster.conf)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(cluster.conf))
            yield
    finally:
        lab_host.unpoint(cluster.conf)


def kill(leader: subprocess.Popen) -> None:
    """Send SIGKILL to every process of a session."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


@dataclass
class Repository:
    """A clone at `folder` on a cluster."""

    folder: Path
    lab: Lab

    def configure(self, **training: object) -> None:
        """Write cluster.yaml: training stages on two nodes with one rank each. training: further keys of them."""
        resources = {"nodes": 2, **training}
        cluster = {
            "executor": "slurm",
            "poll_seconds": 1,
            "defaults": {
                "partition": "main",
                "cpus_per_task": 1,
                "memory_gb": 4,
                "time": "0:30:00",
                "signal_seconds": 5,
            },
            "stages": {"ode_init": resources, "distill": resources},
        }
        with (self.folder / "cluster.yaml").open("w") as file:
            YAML().dump(cluster, file)

    def repro(self, *words: str) -> "Repro":
        """Start `dvc repro` with these arguments."""
        log = (self.folder / "repro.log").open("w")
        command = (sys.executable, "-m", "dvc", "repro", *words)
        variables = {**environment(self.folder), **self.lab.environment()}
        process = subprocess.Popen(
            command, cwd=self.folder, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        STARTED.append(process)
        return Repro(self, process)

    def filmstill(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-m", "filmstill", *words, cwd=self.folder, check=False)

    def jobs(self) -> list[str]:
        """Ids of this repository's live jobs."""
        found = self.lab.ask("squeue", "--noheader", "--format", "%i %Z").splitlines()
        return [line.split()[0] for line in found if line.split()[1] == str(self.folder)]

    def work(self, stage: str) -> Path:
        """The only work folder of a stage."""
        (folder,) = (self.folder / ".work" / stage).iterdir()
        return folder

    def step(self, stage: str) -> int:
        """The step of the latest checkpoint; 0 without one."""
        found = (self.folder / ".work" / stage).glob("*/checkpoints/step-*")
        return max((int(path.name.removeprefix("step-")) for path in found), default=0)

    def trains_on(self, repro: "Repro") -> None:
        """Wait until the distillation has made another step."""
        repro.until_step("distill", self.step("distill") + 1)

    def process(self, rank: str) -> psutil.Process:
        """The process of a rank of the running job."""
        return next(each for each in psutil.process_iter() if self._is_rank(each, rank))

    @contextmanager
    def frozen(self, ranks: tuple[str, ...] = ("0", "1")) -> Iterator[None]:
        """While the block runs, the job's ranks are stopped and receive no signals, so that it cannot end."""
        processes = [self.process(rank) for rank in ranks]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def starts_again(self, repro: "Repro", times: int) -> None:
        """Wait until SLURM has restarted the job `times` times in all, and it has made another step."""
        (number,) = self.jobs()

        def runs() -> bool:
            job = self.lab.job(int(number))
            return job.restarts == times and job.state == "R"

        repro.until(runs)
        self.trains_on(repro)

    def meets_its_limit(self, repro: "Repro", times: int) -> None:
        """Stop the job's ranks, once they have made another step, until SLURM wakes them to signal the time limit.

        Returns when the job has checkpointed and requeued `times` times. A start that is signalled before it has made
        a step does not count: SLURM may send the signal up to a minute early.
        """
        step, folder = self.step("distill"), self.work("distill") / "jobs/0001"
        stopped: set[int] = set()

        def is_requeued() -> bool:
            return len(list(folder.glob("clean-exit-*"))) >= times

        def stop_ranks() -> bool:
            with suppress(StopIteration, psutil.NoSuchProcess):
                for rank in ("0", "1") if self.step("distill") > step and not is_requeued() else ():
                    process = self.process(rank)
                    if process.pid not in stopped:
                        process.suspend()
                        stopped.add(process.pid)
            return is_requeued()

        repro.until(stop_ranks)

    def _is_rank(self, process: psutil.Process, rank: str) -> bool:
        try:
            runs = any(str(self.folder) in word for word in process.cmdline()) and "submitit" in str(process.cmdline())
            # srun, whose command line is the same as the ranks', has SLURM_PROCID=0 too.
            return runs and process.name() != "srun" and process.environ().get("SLURM_PROCID") == rank
        except psutil.Error:
            return False

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def starts(self, stage: str) -> int:
        """Number of submissions of a stage."""
        return len(list(self.work(stage).glob("jobs/*")))


@dataclass
class Repro:
    """A running `dvc repro`."""

    repository: Repository
    process: subprocess.Popen

    @property
    def output(self) -> str:
        return (self.repository.folder / "repro.log").read_text()

    def until(self, condition: Callable[[], object], seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait for `condition`; fails where the run ends first."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended before:\n{self.output[-3000:]}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.output[-3000:]}"
            time.sleep(0.1)

    def until_step(self, stage: str, step: int) -> None:
        self.until(lambda: self.repository.step(stage) >= step)

    def ends(self, seconds: float = TIMEOUT_SECONDS) -> int:
        """Wait for the end; returns the exit code. Fails where a job of the repository is left behind."""
        code = self.process.wait(seconds)
        assert self.repository.jobs() == [], self.output[-3000:]
        return code

    def kill(self) -> None:
        """Send SIGKILL to dvc and every process that it started on this machine."""
        kill(self.process)

    def stage_process(self) -> psutil.Process:
        """The stage's process: a child of dvc or, where the shell that dvc starts stays, of that shell."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(each for each in children if any(word.startswith("stages/") for word in each.cmdline()))
