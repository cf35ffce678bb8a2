"""A repository whose stages SLURM runs: start a `dvc repro`, strike at a moment of it, look at what is left."""

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
DISTILL = {"steps": 16, "batch": 2, "critic_updates": 1}  # short steps, enough of them to be struck several times
PATIENCE = 240.0  # s, for a stage on a busy machine
STARTED: list[subprocess.Popen] = []  # every `dvc repro` of a test: one that it leaves would wait, and hold a lock


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


def kill(leader: subprocess.Popen) -> None:
    """kill -9 of a session."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


@dataclass
class Repository:
    """A clone at `folder` on a cluster. `changes` of cluster.yaml hold until the next."""

    folder: Path
    lab: Lab

    def configure(self, **training: object) -> None:
        """Write cluster.yaml: two nodes with one process each for the training stages, and these changes to them."""
        asked = {"nodes": 2, **training}
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
            "stages": {"ode_init": asked, "distill": asked},
        }
        with (self.folder / "cluster.yaml").open("w") as file:
            YAML().dump(cluster, file)

    def repro(self, *words: str) -> "Repro":
        """Start `dvc repro` with these words."""
        log = (self.folder / "repro.log").open("w")
        command = (sys.executable, "-m", "dvc", "repro", *words)
        around = {**environment(self.folder), **self.lab.environment()}
        process = subprocess.Popen(
            command, cwd=self.folder, env=around, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        STARTED.append(process)
        return Repro(self, process)

    def filmstill(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-m", "filmstill", *words, cwd=self.folder, check=False)

    def jobs(self) -> list[str]:
        """Ids of this repository's jobs that are alive."""
        found = self.lab.ask("squeue", "--noheader", "--format", "%i %Z").splitlines()
        return [line.split()[0] for line in found if line.split()[1] == str(self.folder)]

    def work(self, stage: str) -> Path:
        """The only work folder of a stage."""
        (folder,) = (self.folder / ".work" / stage).iterdir()
        return folder

    def step(self, stage: str) -> int:
        """The newest checkpoint's."""
        found = (self.folder / ".work" / stage).glob("*/checkpoints/step-*")
        return max((int(path.name.removeprefix("step-")) for path in found), default=0)

    def trains_on(self, repro: "Repro") -> None:
        """Wait for another step of the distillation."""
        repro.until_step("distill", self.step("distill") + 1)

    def process(self, rank: str) -> psutil.Process:
        """A process of the job at work."""
        return next(each for each in psutil.process_iter() if self._is_rank(each, rank))

    @contextmanager
    def frozen(self, ranks: tuple[str, ...] = ("0", "1")) -> Iterator[None]:
        """While the block runs, the job's processes stand still, and signals wait for them: it cannot end."""
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
        """Wait until SLURM has started the job again, that often in all, and it has trained on."""
        (number,) = self.jobs()

        def runs() -> bool:
            job = self.lab.job(int(number))
            return job.restarts == times and job.state == "R"

        repro.until(runs)
        self.trains_on(repro)

    def meets_its_limit(self, repro: "Repro", times: int) -> None:
        """Hold the job's processes, once they have trained on, until SLURM wakes them to warn of the time limit.

        Returns when they have left in order. times: how often the job has done so by then. A start that is warned
        before it has trained on, as SLURM may a minute early, is none of these.
        """
        step, folder = self.step("distill"), self.work("distill") / "jobs/0001"
        held: set[int] = set()

        def left() -> bool:
            return len(list(folder.glob("left-*"))) >= times

        def leaves() -> bool:
            with suppress(StopIteration, psutil.NoSuchProcess):
                for rank in ("0", "1") if self.step("distill") > step and not left() else ():
                    process = self.process(rank)
                    if process.pid not in held:
                        process.suspend()
                        held.add(process.pid)
            return left()

        repro.until(leaves)

    def _is_rank(self, process: psutil.Process, rank: str) -> bool:
        try:
            runs = any(str(self.folder) in word for word in process.cmdline()) and "submitit" in str(process.cmdline())
            # To srun, which starts the ranks with the same words, SLURM gives a rank too: 0.
            return runs and process.name() != "srun" and process.environ().get("SLURM_PROCID") == rank
        except psutil.Error:
            return False

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def starts(self, stage: str) -> int:
        """How many submissions a stage has had."""
        return len(list(self.work(stage).glob("jobs/*")))


@dataclass
class Repro:
    """A `dvc repro` under way."""

    repository: Repository
    process: subprocess.Popen

    @property
    def said(self) -> str:
        return (self.repository.folder / "repro.log").read_text()

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait for `condition`; fails when the run ends before it."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended before:\n{self.said[-3000:]}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.said[-3000:]}"
            time.sleep(0.1)

    def until_step(self, stage: str, step: int) -> None:
        self.until(lambda: self.repository.step(stage) >= step)

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for the end; returns the exit code. No job of the repository may be left behind."""
        code = self.process.wait(seconds)
        assert self.repository.jobs() == [], self.said[-3000:]
        return code

    def kill(self) -> None:
        """kill -9 of dvc and all that it started here."""
        kill(self.process)

    def stage_process(self) -> psutil.Process:
        """The stage's own process, below dvc and, where that does not make way, the shell that dvc starts it by."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(each for each in children if any(word.startswith("stages/") for word in each.cmdline()))
