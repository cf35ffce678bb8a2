"""`dvc repro` with SLURM from one end to the other, and whatever clusters do while it trains.

One repository, one training of Self-Forcing on two nodes; every test makes it again from its beginning, strikes, and
compares the bytes of the student with those of the undisturbed run.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from lab import Lab
from runs import INIT, PATIENCE, STUDENT, Repository
from safetensors.torch import load_file

from repository import environment, run

ONLY = ("--force", "--single-item", "distill")


@pytest.fixture(scope="module")
def students(made: Repository) -> dict[str, str]:
    return {"undisturbed": made.digest(STUDENT)}


@pytest.fixture
def again(made: Repository, students: dict[str, str]) -> Iterator[Repository]:
    """The repository before its distillation; afterwards the student is the undisturbed one, and no job is left."""
    made.configure()
    shutil.rmtree(made.folder / ".work" / "distill", ignore_errors=True)
    (made.folder / STUDENT).unlink(missing_ok=True)
    yield made
    assert made.digest(STUDENT) == students["undisturbed"]
    assert made.jobs() == []


def test_shards_and_trainings_were_jobs(made: Repository, lab_with_accounting: Lab):
    shown = ("--noheader", "--parsable2", "--allocations", "--format=JobName,State")

    def accounted() -> list[list[str]]:
        return [line.split("|") for line in lab_with_accounting.ask("sacct", *shown).splitlines()]

    lab_with_accounting.wait_until(lambda: {state for _, state in accounted()} == {"COMPLETED"}, 30)  # it is told late
    names = [name for name, _ in accounted()]
    for stage in ("ode_init", "distill"):
        key = made.work(stage).name
        assert any(name.startswith(f"{stage}-{key}.") for name in names)
        assert "on node[1-2]" in (made.folder / "repro.log").read_text()
    assert sum(name.startswith("ode_pairs-") for name in names) >= 1
    assert sum(name.startswith("samples-") for name in names) >= 1
    figures = (made.work("distill") / "statistics.json").read_text()
    assert '"processes": 2' in figures and "communication" in figures


def test_strikes_that_need_nobody(again: Repository):
    """A preemption, a process killed, a requeue from outside, a slurmd away, the controller away: one `dvc repro` sees
    them all."""
    again.configure(partition="low")
    repro = again.repro(*ONLY)
    repro.until_step("distill", 1)
    again.lab.submit("sleep 1", partition="high", nodes=2, exclusive=True)
    repro.until(lambda: "requeued 1 times" in repro.said)
    assert (again.work("distill") / "jobs/0001/left-0").exists()  # in order: saved, then back to the queue
    again.trains_on(repro)
    again.process("1").kill()
    repro.until(lambda: "once more" in repro.said)
    again.trains_on(repro)
    again.lab.ask("scontrol", "requeue", again.jobs()[0])
    again.starts_again(repro, 1)
    with again.frozen():  # SLURM gives up the node, whose process lives
        again.lab.stop_slurmd("node2")
        again.lab.wait_until(lambda: again.lab.node_state("node2").startswith("down"), 60)
    again.lab.start_node("node2")
    again.starts_again(repro, 2)
    again.lab.stop_controller()
    repro.until(lambda: "controller does not answer" in repro.said)
    again.lab.start_controller()
    assert repro.ends() == 0
    assert again.starts("distill") == 2


def test_whoever_waits_may_go_and_the_next_attaches(again: Repository):
    """Killed and its record lost; told to stop; then the job cancelled and its last checkpoint damaged, whereupon the
    next run goes on from the one before."""
    repro = again.repro(*ONLY)
    repro.until_step("distill", 1)
    repro.kill()
    (again.work("distill") / "job.json").unlink()
    (job,) = again.jobs()
    repro = again.repro(*ONLY)
    repro.until(lambda: f"attached to job {job}" in repro.said)
    repro.until_step("distill", 3)
    repro.stage_process().send_signal(signal.SIGTERM)
    assert repro.process.wait(30) != 0
    assert f"job {job} goes on without this process; `dvc repro` attaches to it" in repro.said
    assert again.jobs() == [job] and again.starts("distill") == 1
    repro = again.repro(*ONLY)
    repro.until_step("distill", 5)
    assert f"cancelled job {job}" in again.filmstill("cancel", "distill").stdout
    assert repro.ends() != 0
    assert f"job {job} was cancelled; `dvc repro` goes on from the last checkpoint" in repro.said
    newest = max((again.work("distill") / "checkpoints").glob("step-*"))
    part = max(newest.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1])
    repro = again.repro(*ONLY)
    assert repro.ends() == 0
    assert f"{newest.name}/{part.name}: damaged" in repro.said and "the checkpoint before it" in repro.said
    assert again.starts("distill") == 2


def test_a_full_scratch_then_a_source_edited_meanwhile(again: Repository):
    """Neither result is published; the work is kept, and what was made goes out once the sources are back."""
    work, source = again.folder / ".work" / "distill", again.folder / "src/filmstill/distill/dmd.py"
    before = source.read_text()
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(work)], check=True)
    try:
        repro = again.repro(*ONLY)
        assert repro.ends() != 0
        assert "disk full while writing" in repro.said and "Traceback" not in repro.said
        subprocess.run(["mount", "-o", "remount,size=200m", str(work)], check=True)
        repro = again.repro(*ONLY)
        repro.until_step("distill", 2)
        source.write_text(before + "\n# another\n")
        assert repro.ends() != 0
        assert "changed" in repro.said and not (again.folder / STUDENT).exists()
        source.write_text(before)
        assert again.repro(*ONLY).ends() == 0
    finally:
        source.write_text(before)
        subprocess.run(["umount", str(work)], check=True)


@pytest.fixture(scope="module")
def local(made: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen]]:
    """What SLURM has made being made here, while a test mostly waits."""
    folder = tmp_path_factory.mktemp("local") / "repository"
    shutil.copytree(made.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".work", "cluster.yaml"))
    repro = f"{sys.executable} -m dvc repro --force --single-item"
    script = " && ".join(f"{repro} {stage}" for stage in ("ode_pairs", "ode_init", "distill"))
    with (folder / "repro.log").open("w") as log:
        around = {"env": environment(folder), "stdout": log, "stderr": log, "start_new_session": True}
        process = subprocess.Popen(script, shell=True, cwd=folder, **around)
    yield folder, process
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)


def test_time_limits_while_another_experiment_trains(again: Repository, local: object, tmp_path: Path):
    """Two worktrees at once; the job of one meets its limit twice, and leaves in order, however fast it trains."""
    other = worktree(again, tmp_path / "other")
    again.configure(time="0:01:00", signal_seconds=10)
    other.configure(nodes=1)
    both = again.repro(*ONLY), other.repro(*ONLY)
    both[0].until(lambda: again.step("distill") and other.step("distill"))
    assert len(again.jobs()) == len(other.jobs()) == 1
    assert "distill" in other.filmstill("jobs").stdout
    for leaves in (1, 2):
        again.meets_its_limit(both[0], leaves)
        again.starts_again(both[0], leaves)
    assert [repro.ends() for repro in both] == [0, 0]
    assert again.starts("distill") == 1 and len(list(again.work("distill").glob("jobs/*/left-*"))) >= 2
    assert again.digest(STUDENT) != other.digest(STUDENT)
    assert again.work("distill").name != other.work("distill").name


def test_the_local_run_is_the_same_within_rounding(made: Repository, local: tuple[Path, subprocess.Popen]):
    folder, process = local
    assert process.wait(PATIENCE) == 0, (folder / "repro.log").read_text()[-3000:]
    for shard in sorted((made.folder / "data/ode_pairs").glob("*.safetensors")):
        assert (folder / "data/ode_pairs" / shard.name).read_bytes() == shard.read_bytes()
    for name in (INIT, STUDENT):
        here, there = load_file(folder / name), load_file(made.folder / name)
        assert max((here[key] - there[key]).abs().max().item() for key in here) <= 1e-5


def worktree(made: Repository, folder: Path) -> Repository:
    """Another branch of a repository in a folder of its own, with other parameters."""
    other = Repository(folder, made.lab)
    run("git", "worktree", "add", "--quiet", "-b", "other", str(folder), cwd=made.folder)
    run(sys.executable, "-m", "dvc", "cache", "dir", "--local", f"{made.folder}/.dvc/cache", cwd=folder)
    run(sys.executable, "-m", "dvc", "checkout", "--quiet", cwd=folder)
    changed = ("distill.updates=4", "distill.lr=1e-3")
    run(sys.executable, "-m", "filmstill", "profile", "smoke", *changed, cwd=folder)
    return other
