"""A stage as a job on a real SLURM: how it succeeds, how it fails, and which process waits for it.

The stage only counts, and its count is its checkpoint, so that a job takes seconds. Everything around it, from
`run_stage("distill", dispatched(main))` to the published outputs, is the pipeline's code.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from counting_stage import GRAPH, SECONDS, STAGE, STEPS, Repository
from repository import ROOT, environment


@pytest.fixture
def repository(tmp_path: Path, lab: Any) -> Iterator[Repository]:
    shutil.copytree(ROOT / "src/filmstill", tmp_path / "src/filmstill", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/distill.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": GRAPH}))
    found = Repository(tmp_path, {**environment(tmp_path), **lab.environment(), "COLUMNS": "200"})
    found.write()
    yield found
    live = found.alive()
    for job in live:
        found.slurm("scancel", "--signal=KILL", job)
        found.slurm("scancel", job)
    assert not live, f"jobs left behind: {live}\n{found.output()}"


def until(condition: Callable[[], Any]) -> Any:
    """Poll `condition` until its value is true, and return the value."""
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"condition is false after {SECONDS} s"
        time.sleep(0.1)
    return found


def midway(repository: Repository) -> tuple[subprocess.Popen[str], str]:
    """Start the stage and wait for a few steps; returns the process that waits, and the job's id."""
    process = repository.start()
    until(lambda: process.poll() is not None or len(repository.steps()) > 1)
    assert process.poll() is None, repository.output()
    return process, repository.jobs()[0]


def finished(repository: Repository, code: int) -> None:
    """Assert that the stage succeeded: it is published, and every step was made once."""
    assert code == 0, repository.output()
    assert repository.published() == STEPS
    assert repository.steps() == list(range(STEPS))


def test_a_submission_killed_half_way_is_adopted(repository):
    """It is killed after sbatch, before submitit has moved the job's pickle to where the job looks for it."""
    repository.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")  # jobs stay pending
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


def test_a_crash_is_reported_and_not_retried(repository):
    repository.write(seconds=0, fails_at=4)
    assert repository.run() == 2
    *before, last = repository.output().splitlines()
    assert "crashed: ValueError: no step 4 today (stages/distill.py:" in last and "_1_log.err" in last
    assert before[-1] == "ValueError: no step 4 today" and any("Traceback" in line for line in before[-12:])
    assert repository.steps() == [0, 1, 2, 3] and repository.published() is None
    [folder] = repository.works("jobs/*")
    assert not list(folder.glob("clean-exit-*"))


def test_a_missed_gate_shows_by_how_much_and_does_not_train_again_when_lowered(repository):
    repository.write(seconds=0, gate=STEPS + 1)
    assert repository.run() == 1
    assert f"distill.gate: is {STEPS + 1}, counted to {STEPS}" in repository.output().splitlines()[-1]
    assert repository.published() == STEPS  # the metrics
    repository.write(seconds=0)
    finished(repository, repository.run())


def test_sources_edited_meanwhile_are_refused_by_the_job(repository):
    process, _ = midway(repository)
    script = repository.root / "stages/distill.py"
    script.write_text(script.read_text() + "# edited\n")
    assert process.wait(SECONDS) == 2
    assert "changed since it was submitted" in repository.output().splitlines()[-1]
    assert repository.published() is None and len(repository.jobs()) == 1


def test_a_killed_rank_is_a_loss_and_losses_are_limited(repository):
    repository.write(cluster={"max_requeues": 0})
    process, job = midway(repository)
    ranks = [each for each in psutil.process_iter() if repository.rank_of(each, job) == "1"]
    assert ranks
    for each in ranks:
        each.kill()
    assert process.wait(SECONDS) == 2
    assert "more often than max_requeues" in repository.output().splitlines()[-1]


def test_a_signal_while_python_starts_does_not_kill_it(repository):
    """SLURM sends the signal that early to a job that is preempted as soon as it starts."""
    warned = f"bash -c 'kill -USR2 $$; exec \"$@\"' -- {sys.executable}"
    repository.write(cluster={"stages": {"distill": {"python": warned}}})
    finished(repository, repository.run())
    assert len(repository.works("jobs/*")) == 1


def test_a_local_run_beside_a_job_is_refused(repository):
    process, job = midway(repository)
    ranks = [each for each in psutil.process_iter() if repository.rank_of(each, job)]
    try:
        for each in ranks:  # so that the job does not end meanwhile
            each.suspend()
        (repository.root / "cluster.yaml").unlink()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert repository.run() == 2
        assert f"distill: job {job} is at work in .work/distill/" in repository.output()
        with_slurm, repository.variables["PATH"] = repository.variables["PATH"], without("sbatch", repository)
        assert repository.run() == 2
        assert "a job may be at work in .work/distill/" in repository.output()
        assert "its commands are not on this machine" in repository.output()
        repository.variables["PATH"] = with_slurm
    finally:
        for each in ranks:
            each.resume()
    repository.write()
    finished(repository, repository.run())
    assert len(repository.jobs()) == 1


def without(command: str, repository: Repository) -> str:
    """A PATH with links to every command of the repository's PATH except this one."""
    folder = repository.root / "bin"
    folder.mkdir()
    for found in filter(Path.is_dir, map(Path, repository.variables["PATH"].split(os.pathsep))):
        for tool in found.iterdir():
            if tool.name != command and not (folder / tool.name).is_symlink():
                (folder / tool.name).symlink_to(tool)
    return str(folder)


def test_a_job_that_ended_unattended_is_published(repository):
    process, _ = midway(repository)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not repository.alive())
    finished(repository, repository.run())
    assert "submitted" not in repository.output() and len(repository.works("jobs/*")) == 1


def test_restarts_by_slurm_are_limited_too(repository):
    repository.write(seconds=1, cluster={"max_requeues": 0})
    process, job = midway(repository)
    repository.slurm("scontrol", "requeue", job)
    assert process.wait(SECONDS) == 2
    assert "more often than max_requeues" in repository.output().splitlines()[-1]
    assert repository.published() is None and len(repository.works("jobs/*")) == 1


def test_another_job_under_the_id_on_record_is_not_trusted(repository):
    """A new cluster counts job ids from the start: the recorded id may belong to a job of somebody else."""
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
    assert "attached" not in repository.output() and len(repository.works("jobs/*")) == 2, repository.output()


def test_when_dvc_is_killed_the_wait_ends_and_the_next_one_judges_by_the_gate_that_stands_then(repository):
    repository.write(seconds=2, gate=STEPS + 1)  # long enough that the job does not end during the test
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
    assert "attached to" in repository.output() and "gates that changed since" in repository.output()
    assert len(repository.jobs()) == 1 and len(repository.works("jobs/*")) == 2


def test_a_cancelled_job_that_is_still_ending_is_not_attached_to(repository):
    """As in `filmstill cancel distill && dvc repro`: the next job starts when SLURM has killed the cancelled one."""
    repository.write(seconds=2)
    process, job = midway(repository)
    cancelled = repository.slurm(sys.executable, "-m", "filmstill", "cancel", "distill")
    assert f"cancelled job {job} of distill" in cancelled and repository.alive() == [job]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    repository.write(seconds=0)
    finished(repository, repository.run())
    assert f"distill: job {job} is ending; waiting for its end" in repository.output()
    assert "attached" not in repository.output() and len(repository.works("jobs/*")) == 2, repository.output()


def test_a_pickle_that_is_removed_while_its_job_waits_is_reported_at_once(repository):
    repository.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        process = repository.start()
        [job] = until(repository.alive)
        [pickle] = until(lambda: repository.works("jobs/*/*_submitted.pkl"))
        pickle.unlink()
        assert process.wait(10) == 2
        name = pickle.relative_to(repository.root)
        last = repository.output().splitlines()[-1]
        assert last.startswith(f"filmstill: {name}: was removed, and job {job} cannot start without it") and last.count(
            "run `dvc repro` again"
        )
        until(lambda: not repository.alive())
    finally:
        repository.slurm("scontrol", "update", "PartitionName=main", "State=UP")
    finished(repository, repository.run())
