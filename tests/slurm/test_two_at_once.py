"""Two experiments at the same time from two worktrees, and one of them again without SLURM."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from repository import environment, run
from runs import INIT, ONLY, STUDENT, TEACHER, TIMEOUT_SECONDS, Repository, kill


@pytest.fixture(scope="module")
def local(made: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen]]:
    """The stages that ran on SLURM run here without it, in the background of a test that mostly waits."""
    folder = tmp_path_factory.mktemp("local") / "repository"
    shutil.copytree(made.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".work", "cluster.yaml"))
    repro = f"{sys.executable} -m dvc repro --force --single-item"
    # The teacher last: the other stages use the one that was made on SLURM.
    script = " && ".join(f"{repro} {stage}" for stage in ("ode_pairs", "ode_init", "distill", "samples", "teacher"))
    with (folder / "repro.log").open("w") as log:
        options = {"env": environment(folder), "stdout": log, "stderr": log, "start_new_session": True}
        process = subprocess.Popen(script, shell=True, cwd=folder, **options)
    yield folder, process
    kill(process)


def test_time_limits_while_another_experiment_trains(again: Repository, local: object, tmp_path: Path):
    """Two worktrees train at the same time; the job of one reaches its time limit twice, checkpoints and requeues."""
    other = worktree(again, tmp_path / "other")
    again.configure(time="0:01:00", signal_seconds=20)
    other.configure(nodes=1)
    both = again.repro(*ONLY), other.repro(*ONLY)
    both[1].until_step("distill", 1)
    with other.frozen(ranks=("0",)):
        both[0].until_step("distill", 1)
        assert len(again.jobs()) == len(other.jobs()) == 1
        assert "distill" in other.filmstill("jobs").stdout
    for times in (1, 2):
        again.meets_its_limit(both[0], times)
        again.trains_on(both[0])  # which only the next start can do
    assert [repro.ends() for repro in both] == [0, 0]
    assert again.starts("distill") == 1 and len(list(again.work("distill").glob("jobs/*/clean-exit-*"))) >= 2
    beside = other.digest(STUDENT)
    assert beside != again.digest(STUDENT) and again.work("distill").name != other.work("distill").name
    shutil.rmtree(other.folder / ".work" / "distill")
    assert other.repro(*ONLY).ends() == 0
    assert other.digest(STUDENT) == beside  # made without the other


def test_the_local_run_is_the_same_within_rounding(made: Repository, local: tuple[Path, subprocess.Popen]):
    folder, process = local
    assert process.wait(TIMEOUT_SECONDS) == 0, (folder / "repro.log").read_text()[-3000:]
    for shard in sorted((made.folder / "data/ode_pairs").glob("*.safetensors")):
        assert (folder / "data/ode_pairs" / shard.name).read_bytes() == shard.read_bytes()
    clips = sorted(str(path.relative_to(folder)) for path in (folder / "data/samples/latents").glob("*.safetensors"))
    assert len(clips) == 8
    for name in (TEACHER, INIT, STUDENT, *clips):
        here, there = load_file(folder / name), load_file(made.folder / name)
        assert max((here[key] - there[key]).abs().max().item() for key in here) <= 1e-5


def worktree(made: Repository, folder: Path) -> Repository:
    """A worktree of the repository on another branch, with other parameters and work folders of its own."""
    other = Repository(folder, made.lab)
    run("git", "worktree", "add", "--quiet", "-b", "other", str(folder), cwd=made.folder)
    (folder / ".work/distill").mkdir(parents=True)  # else it would share the main checkout's
    run(sys.executable, "-m", "dvc", "cache", "dir", "--local", f"{made.folder}/.dvc/cache", cwd=folder)
    run(sys.executable, "-m", "dvc", "checkout", "--quiet", cwd=folder)
    changed = ("distill.steps=4", "distill.lr=1e-3")
    run(sys.executable, "-m", "filmstill", "profile", "smoke", *changed, cwd=folder)
    return other
