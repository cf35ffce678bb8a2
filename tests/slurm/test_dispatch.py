"""A stage as a job of a real SLURM: what ends it well, what ends it for good, and who waits for it.

Notable: the stage counts, and its count is its checkpoint, so that a job takes seconds; everything around it, from
`run("distill", dispatched(main))` to what is published, is the pipeline's own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from repository import ROOT, environment

STEPS = 12
SECONDS = 60.0  # enough for anything that is waited for here

STAGE = """
import os
import time

from filmstill.cluster.dispatch import dispatched
from filmstill.errors import GateError, Interrupted
from filmstill.params.load import read_plain
from filmstill.runtime.files import write_json
from filmstill.runtime.progress import progress
from filmstill.cluster.run import run_stage


def main(stage):
    from filmstill.runtime import distributed
    from filmstill.training.stopping import SAVE, stop_requested

    given, steps = read_plain("params.yaml"), stage.work / "steps.txt"
    params = given["toy"]
    done = len(steps.read_text().splitlines()) if steps.exists() else 0
    with stop_requested() as told, progress("distill", params["steps"], done) as bar:
        for step in range(distributed.broadcast(done), params["steps"]):
            time.sleep(given["seconds"])
            if step == params["fails_at"] and distributed.rank() == 1:
                raise ValueError(f"no step {step} today")
            distributed.all_reduce_max(step)
            if distributed.is_rank0():
                with steps.open("a") as file:
                    file.write(f"{step} {os.environ.get('SLURM_JOB_ID', 'here')}\\n")
            bar.update()
            if (stop := told()) > SAVE:
                raise Interrupted("stopped", stop)
    if distributed.is_rank0():
        print("counted to", params["steps"], "on", distributed.world_size())
        write_json(stage.out / "distill" / "count.json", params["steps"])
    if params["gate"] > params["steps"]:
        raise GateError(f"distill.gate: is {params['gate']}, counted to {params['steps']}")


if __name__ == "__main__":
    run_stage("distill", dispatched(main))
"""
GRAPH = {
    "distill": {
        "cmd": "python stages/distill.py",
        "deps": ["stages/distill.py"],
        "params": ["toy"],
        "metrics": [{"data/distill/count.json": {"cache": False}}],
    }
}


@dataclass
class Repository:
    """A repository whose one stage counts, on two nodes of the cluster."""

    root: Path
    around: dict[str, str]

    def write(self, seconds: float = 0.4, cluster: dict[str, Any] | None = None, **params: Any) -> None:
        """params.yaml and cluster.yaml anew, with these values; `seconds` a step is not in the key."""
        usual = {"steps": STEPS, "fails_at": -1, "gate": 0}
        asked = {"nodes": 2, "cpus_per_task": 1, "memory_gb": 1, "time": "0:10:00", "signal_seconds": 30}
        machine = {"executor": "slurm", "poll_seconds": 0.5, "defaults": asked, **(cluster or {})}
        sections = {"compute": {}, "ode_init": {}, "distill": {}}  # what jobs are refused by, at their defaults
        given = {**sections, "seconds": seconds, "toy": usual | params}
        for name, value in (("params", given), ("cluster", machine)):
            (self.root / f"{name}.yaml").write_text(yaml.safe_dump(value))

    def start(self, *command: str) -> subprocess.Popen[str]:
        """The stage as `dvc repro` runs it, in a session of its own; its stderr goes to stderr.txt."""
        words = command or (sys.executable, "stages/distill.py")
        with (self.root / "stderr.txt").open("w") as said:
            return subprocess.Popen(
                words, cwd=self.root, env=self.around, stdout=said, stderr=said, text=True, start_new_session=True
            )

    def said(self) -> str:
        return (self.root / "stderr.txt").read_text()

    def run(self) -> int:
        return self.start().wait(SECONDS)

    def steps(self) -> list[int]:
        return [int(line.split()[0]) for path in self.works("steps.txt") for line in path.read_text().splitlines()]

    def jobs(self) -> list[str]:
        """The ids of the jobs that made steps."""
        return sorted({line.split()[1] for path in self.works("steps.txt") for line in path.read_text().splitlines()})

    def works(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(f".work/distill/*/{pattern}"))

    def published(self) -> int | None:
        path = self.root / "data/distill/count.json"
        return json.loads(path.read_text()) if path.exists() else None

    def slurm(self, *words: str) -> str:
        return subprocess.run(words, cwd=self.root, env=self.around, capture_output=True, text=True, check=True).stdout

    def alive(self) -> list[str]:
        """Ids of this repository's jobs that wait or run."""
        lines = self.slurm("squeue", "--noheader", "--Format", "JobID:|,WorkDir:|").splitlines()
        return [line.split("|")[0] for line in lines if line.split("|")[1] == str(self.root)]

    def rank_of(self, process: psutil.Process, job: str) -> str | None:
        """The rank of a process of a job; None for any other process, and for those of another cluster's jobs."""
        with suppress(psutil.Error):
            around = process.environ()
            ours = (around.get("SLURM_CONF"), around.get("SLURM_JOB_ID")) == (self.around["SLURM_CONF"], job)
            if ours and "submitit.core._submit" in process.cmdline():
                return around.get("SLURM_PROCID")
        return None

    def python(self, line: str) -> str:
        return self.slurm(sys.executable, "-c", line)


@pytest.fixture
def repository(tmp_path: Path, lab: Any) -> Iterator[Repository]:
    shutil.copytree(ROOT / "src/filmstill", tmp_path / "src/filmstill", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/distill.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": GRAPH}))
    found = Repository(tmp_path, {**environment(tmp_path), **lab.environment(), "COLUMNS": "200"})
    found.write()
    yield found
    left = found.alive()
    for job in left:
        found.slurm("scancel", "--signal=KILL", job)
        found.slurm("scancel", job)
    assert not left, f"jobs left behind: {left}\n{found.said()}"


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.1)
    return found


def midway(repository: Repository) -> tuple[subprocess.Popen[str], str]:
    """The stage under way, a few steps done; the process that waits and its job's id."""
    process = repository.start()
    until(lambda: process.poll() is not None or len(repository.steps()) > 1)
    assert process.poll() is None, repository.said()
    return process, repository.jobs()[0]


def finished(repository: Repository, code: int) -> None:
    """The stage ended well: published, every step made once."""
    assert code == 0, repository.said()
    assert repository.published() == STEPS
    assert repository.steps() == list(range(STEPS))


def test_a_submission_killed_half_way_is_adopted(repository):
    """After sbatch, before submitit has put the job's pickle where the job looks for it."""
    repository.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")  # jobs wait
    try:
        process = repository.start()
        until(repository.alive)
        until(lambda: repository.works("job.json"))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        [pickle] = repository.works("jobs/*/*_submitted.pkl")
        pickle.rename(pickle.with_name("0123456789abcdef.pkl"))
        repository.works("job.json")[0].unlink()
    finally:
        repository.slurm("scontrol", "update", "PartitionName=main", "State=UP")
    finished(repository, repository.run())
    assert len(repository.works("jobs/*")) == 1


def test_a_crash_is_told_and_not_tried_again(repository):
    repository.write(seconds=0, fails_at=4)
    assert repository.run() == 2
    *before, last = repository.said().splitlines()
    assert "crashed: ValueError: no step 4 today (stages/distill.py:" in last and "_1_log.err" in last
    assert before[-1] == "ValueError: no step 4 today" and any("Traceback" in line for line in before[-12:])
    assert repository.steps() == [0, 1, 2, 3] and repository.published() is None
    [folder] = repository.works("jobs/*")
    assert not list(folder.glob("left-*"))


def test_a_missed_gate_shows_by_how_much_and_does_not_train_again_when_lowered(repository):
    repository.write(seconds=0, gate=STEPS + 1)
    assert repository.run() == 1
    assert f"distill.gate: is {STEPS + 1}, counted to {STEPS}" in repository.said().splitlines()[-1]
    assert repository.published() == STEPS  # the figures
    repository.write(seconds=0)
    finished(repository, repository.run())


def test_sources_edited_meanwhile_are_refused_by_the_job(repository):
    process, _ = midway(repository)
    script = repository.root / "stages/distill.py"
    script.write_text(script.read_text() + "# edited\n")
    assert process.wait(SECONDS) == 2
    assert "changed since it was submitted" in repository.said().splitlines()[-1]
    assert repository.published() is None and len(repository.jobs()) == 1


def test_a_killed_process_is_a_loss_and_losses_have_an_end(repository):
    repository.write(cluster={"max_requeues": 0})
    process, job = midway(repository)
    ranks = [each for each in psutil.process_iter() if repository.rank_of(each, job) == "1"]
    assert ranks
    for each in ranks:
        each.kill()
    assert process.wait(SECONDS) == 2
    assert "more often than max_requeues" in repository.said().splitlines()[-1]


def test_a_warning_while_python_is_started_is_not_its_death(repository):
    """As SLURM sends it to a job that is preempted at once."""
    warned = f"bash -c 'kill -USR2 $$; exec \"$@\"' -- {sys.executable}"
    repository.write(cluster={"stages": {"distill": {"python": warned}}})
    finished(repository, repository.run())
    assert len(repository.works("jobs/*")) == 1


def test_nobody_trains_here_beside_a_job(repository):
    process, job = midway(repository)
    ranks = [each for each in psutil.process_iter() if repository.rank_of(each, job)]
    try:
        for each in ranks:  # however long it takes here, the job does not end meanwhile
            each.suspend()
        (repository.root / "cluster.yaml").unlink()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert repository.run() == 2
        assert f"distill: job {job} is at work in .work/distill/" in repository.said()
        with_slurm, repository.around["PATH"] = repository.around["PATH"], without("sbatch", repository)
        assert repository.run() == 2
        assert "a job may be at work in .work/distill/" in repository.said()
        assert "its commands are not on this machine" in repository.said()
        repository.around["PATH"] = with_slurm
    finally:
        for each in ranks:
            each.resume()
    repository.write()
    finished(repository, repository.run())
    assert len(repository.jobs()) == 1


def without(command: str, repository: Repository) -> str:
    """A PATH of a folder of links to all that the PATH has, but this command."""
    folder = repository.root / "bin"
    folder.mkdir()
    for found in filter(Path.is_dir, map(Path, repository.around["PATH"].split(os.pathsep))):
        for tool in found.iterdir():
            if tool.name != command and not (folder / tool.name).is_symlink():
                (folder / tool.name).symlink_to(tool)
    return str(folder)


def test_a_job_that_ended_while_nobody_waited_is_published(repository):
    process, _ = midway(repository)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not repository.alive())
    finished(repository, repository.run())
    assert "submitted" not in repository.said() and len(repository.works("jobs/*")) == 1


def test_starts_that_slurm_makes_have_an_end_too(repository):
    repository.write(seconds=1, cluster={"max_requeues": 0})
    process, job = midway(repository)
    repository.slurm("scontrol", "requeue", job)
    assert process.wait(SECONDS) == 2
    assert "more often than max_requeues" in repository.said().splitlines()[-1]
    assert repository.published() is None and len(repository.works("jobs/*")) == 1


def test_another_job_under_the_id_on_record_is_not_trusted(repository):
    """A cluster set up anew counts its jobs as before: the record's id is a stranger's, and its result another's."""
    repository.write(seconds=1)
    process, job = midway(repository)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    repository.slurm("scancel", job)
    repository.write(seconds=0)
    until(lambda: not repository.alive())
    submitted = repository.slurm("sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", "--wrap", "sleep 60")
    record = repository.works("job.json")[0]
    [facts] = json.loads(record.read_text())
    record.write_text(json.dumps([{**facts, "id": submitted.strip()}]))
    finished(repository, repository.run())
    repository.slurm("scancel", submitted.strip())
    assert "attached" not in repository.said() and len(repository.works("jobs/*")) == 2


def test_when_dvc_is_killed_the_wait_ends_and_the_next_one_judges_by_the_gate_that_stands_then(repository):
    repository.write(seconds=2, gate=STEPS + 1)  # so long that the job does not end while others come and go
    dvc = repository.root / "dvc"
    dvc.write_text("import subprocess, sys\nsubprocess.run([sys.executable, 'stages/distill.py'])\n")
    process = repository.start(sys.executable, "dvc")
    until(lambda: repository.steps())
    [stage] = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    assert psutil.wait_procs([stage], SECONDS)[1] == []
    repository.write(seconds=0)
    finished(repository, repository.run())
    assert "attached to" in repository.said() and "gates that no longer stand" in repository.said()
    assert len(repository.jobs()) == 1 and len(repository.works("jobs/*")) == 2
