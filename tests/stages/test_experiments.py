"""`dvc exp run --temp`: what git ignores is found in the repository that DVC made the experiment's folder in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mini_wan import write_mini
from repository import clone, commit, dvc, environment, run

TEACHER, WEIGHTS = "data/teacher/teacher.safetensors", Path("data/released/wan-mini")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the miniature Wan, whose weights git ignores."""
    folder = clone(tmp_path_factory.mktemp("experiments") / "wan", "wan-mini")
    write_mini(folder / WEIGHTS)
    return folder


def experiment(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run an experiment of the teacher in a folder of its own."""
    command = (sys.executable, "-m", "dvc", "exp", "run", "--temp", *words)
    return subprocess.run(
        command, cwd=folder, env=environment(folder) | variables, capture_output=True, text=True, check=False
    )


def recorded(folder: Path, name: str) -> dict[str, Any]:
    """The teacher's entry in the dvc.lock of an experiment; with name HEAD, of the commit."""
    ref = run("git", "for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}", cwd=folder).stdout.strip()
    return yaml.safe_load(run("git", "show", f"{ref or name}:dvc.lock", cwd=folder).stdout)["stages"]["teacher"]


def hashes(entry: dict[str, Any]) -> dict[str, str]:
    """Hash by dependency."""
    return {each["path"]: each["md5"] for each in entry["deps"]}


def test_released_weights_are_found_and_recorded_by_their_own_hashes(wan: Path):
    done = experiment(wan, "--name", "ignored", "-S", "teacher.boundary=0.8", "teacher")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(wan.glob(".work/teacher/*/done.json"))  # the work is the repository's
    dvc(wan, "repro", "teacher")
    commit(wan, "teacher")
    found, expected = hashes(recorded(wan, "ignored")), hashes(recorded(wan, "HEAD"))
    assert found == expected and found[str(WEIGHTS)].endswith(".dir")
    assert recorded(wan, "ignored")["params"] != recorded(wan, "HEAD")["params"]


def test_weights_that_dvc_tracks_come_from_its_cache(wan: Path, tmp_path: Path):
    """`dvc add`, the way that also brings them to another machine."""
    folder = tmp_path / "wan"
    shutil.copytree(wan, folder, symlinks=True)
    dvc(folder, "add", str(WEIGHTS))
    commit(folder, "weights")
    assert run("git", "ls-files", f"{WEIGHTS}.dvc", cwd=folder).stdout
    shutil.move(folder / WEIGHTS, tmp_path / "elsewhere")
    done = experiment(folder, "--name", "tracked", "-S", "teacher.boundary=0.7", "teacher")
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashes(recorded(folder, "tracked"))[str(WEIGHTS)] == hashes(recorded(wan, "HEAD"))[str(WEIGHTS)]


def test_weights_that_nobody_has_are_one_line(wan: Path, tmp_path: Path):
    folder = clone(tmp_path / "wan", "wan-mini")
    done = dvc(folder, "repro", "teacher", check=False)
    line = f"filmstill: teacher.released: is '{WEIGHTS}', allowed: a file or folder that exists; `python -m filmstill "
    assert done.returncode != 0 and line in done.stderr and "Traceback" not in done.stderr


def test_a_worktree_finds_weights_prompts_and_work(wan: Path, tmp_path: Path):
    other = tmp_path / "other"
    run("git", "worktree", "add", "--quiet", "--detach", str(other), cwd=wan)
    dvc(other, "repro", "teacher")
    assert (other / TEACHER).read_bytes() == (wan / TEACHER).read_bytes()
    assert os.path.samefile(other / ".work", wan / ".work") and (other / WEIGHTS).is_symlink()


def test_a_wrong_cluster_yaml_stops_an_experiment_and_is_named(wan: Path):
    """Without the repository's cluster.yaml, a training would run on the login node."""
    (wan / "cluster.yaml").write_text("executor: slrm\n")
    try:
        done = experiment(wan, "-S", "prompts.eval_share=0.2", "prompts")
        assert done.returncode != 0
        assert f"filmstill: {wan}/cluster.yaml: executor: is 'slrm', allowed: one of local, slurm" in done.stderr
        done = experiment(wan, "-S", "prompts.eval_share=0.2", "prompts", FILMSTILL_CLUSTER="nowhere.yaml")
        assert "filmstill: FILMSTILL_CLUSTER: is 'nowhere.yaml', allowed: the path of a file that exists" in done.stderr
        done = experiment(wan, "-S", "prompts.eval_share=0.2", "prompts", FILMSTILL_CLUSTER="none")
        assert done.returncode == 0, done.stderr
    finally:
        (wan / "cluster.yaml").unlink()
