"""A repository with one stage that only counts, so that a job on SLURM takes seconds; its count is its checkpoint."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

STEPS = 12
SECONDS = 60.0  # time limit of every wait

STAGE = """
import os
import time

from filmstill.cluster.dispatch import dispatched
from filmstill.errors import GateError, Interrupted
from filmstill.params.load import read_plain
from filmstill.runtime.files import write_json
from filmstill.runtime.progress import progress
from filmstill.cluster.config import read_cluster
from filmstill.cluster.scratch import use_work
from filmstill.work.stage import run


def main(stage):
    from filmstill.runtime import distributed
    from filmstill.training.stopping import SAVE_AND_CONTINUE, deferred_signals

    given, steps = read_plain("params.yaml"), stage.work / "steps.txt"
    params = given["toy"]
    done = len(steps.read_text().splitlines()) if steps.exists() else 0
    with deferred_signals() as poll_signals, progress("distill", params["steps"], done) as bar:
        for step in range(distributed.broadcast(done), params["steps"]):
            time.sleep(given["seconds"])
            if step == params["fails_at"] and distributed.rank() == 1:
                raise ValueError(f"no step {step} today")
            distributed.all_reduce_max(step)
            if distributed.is_rank0():
                with steps.open("a") as file:
                    file.write(f"{step} {os.environ.get('SLURM_JOB_ID', 'here')}\\n")
            bar.update()
            if (stop := poll_signals()) > SAVE_AND_CONTINUE:
                raise Interrupted("stopped", stop)
    if distributed.is_rank0():
        print("counted to", params["steps"], "on", distributed.world_size())
        write_json(stage.out / "distill" / "count.json", params["steps"])
    if params["gate"] > params["steps"]:
        raise GateError(f"distill.gate: is {params['gate']}, counted to {params['steps']}")


if __name__ == "__main__":
    run("distill", dispatched(main), lambda root: use_work(read_cluster(), root))
"""
GRAPH = {
    "distill": {
        "cmd": "python stages/distill.py",
        "deps": ["stages/distill.py"],
        "params": ["compute", "toy"],
        "metrics": [{"data/distill/count.json": {"cache": False}}],
    }
}


@dataclass
class Repository:
    """A repository with one stage, which counts on two nodes of the cluster."""

    root: Path
    variables: dict[str, str]  # the environment of its processes

    def write(self, seconds: float = 0.4, cluster: dict[str, Any] | None = None, **params: Any) -> None:
        """Write params.yaml and cluster.yaml with these values. seconds: per step; not part of the key."""
        usual = {"steps": STEPS, "fails_at": -1, "gate": 0}
        resources = {"nodes": 2, "cpus_per_task": 1, "memory_gb": 1, "time": "0:10:00", "signal_seconds": 30}
        machine = {"executor": "slurm", "poll_seconds": 0.5, "defaults": resources, **(cluster or {})}
        sections = {"compute": {}, "ode_init": {}, "distill": {}}  # the preflight reads these sections
        given = {**sections, "seconds": seconds, "toy": usual | params}
        for name, value in (("params", given), ("cluster", machine)):
            (self.root / f"{name}.yaml").write_text(yaml.safe_dump(value))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start the stage as `dvc repro` does, in a new session; its output goes to stderr.txt."""
        words = command or (sys.executable, "stages/distill.py")
        with (self.root / "stderr.txt").open("w") as log:
            return subprocess.Popen(
                words, cwd=self.root, env=self.variables, stdout=log, stderr=log, text=True, start_new_session=True
            )

    def output(self) -> str:
        return (self.root / "stderr.txt").read_text()

    def run(self) -> int:
        return self.start().wait(SECONDS)

    def steps(self) -> list[int]:
        return [int(line.split()[0]) for path in self.works("steps.txt") for line in path.read_text().splitlines()]

    def jobs(self) -> list[str]:
        """Ids of the jobs that made steps."""
        return sorted({line.split()[1] for path in self.works("steps.txt") for line in path.read_text().splitlines()})

    def works(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(f".work/distill/*/{pattern}"))

    def published(self) -> int | None:
        path = self.root / "data/distill/count.json"
        return json.loads(path.read_text()) if path.exists() else None

    def slurm(self, *words: str) -> str:
        return subprocess.run(
            words, cwd=self.root, env=self.variables, capture_output=True, text=True, check=True
        ).stdout

    def alive(self) -> list[str]:
        """Ids of this repository's live jobs."""
        lines = self.slurm("squeue", "--noheader", "--Format", "JobID:|,WorkDir:|").splitlines()
        return [line.split("|")[0] for line in lines if line.split("|")[1] == str(self.root)]

    def rank_of(self, process: psutil.Process, job: str) -> str | None:
        """The rank of a process of this job; None for any other process, including those of another cluster's jobs."""
        with suppress(psutil.Error):
            variables = process.environ()
            ours = (variables.get("SLURM_CONF"), variables.get("SLURM_JOB_ID")) == (self.variables["SLURM_CONF"], job)
            if ours and "submitit.core._submit" in process.cmdline():
                return variables.get("SLURM_PROCID")
        return None

    def python(self, line: str) -> str:
        return self.slurm(sys.executable, "-c", line)
