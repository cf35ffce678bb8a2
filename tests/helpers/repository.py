"""A temporary copy of this repository in which the pipeline runs, apart from the one under test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def clone(folder: Path, profile: str = "smoke") -> Path:
    """A fresh repository at `folder` with the working tree's files, one commit, and `profile` as its parameters."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    run("git", "init", "--quiet", cwd=folder)
    run(sys.executable, "-m", "filmstill", "profile", profile, cwd=folder)
    commit(folder, "start")
    return folder


def commit(folder: Path, message: str) -> None:
    run("git", "add", "--all", cwd=folder)
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", message, cwd=folder)


def environment(folder: Path) -> dict[str, str]:
    """The clone's own sources before the ones under test, and this interpreter's tools."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(folder / "src"), "PATH": path}


def run(*words: str, cwd: Path, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command there; with `check` a failure shows what it printed."""
    done = subprocess.run(words, cwd=cwd, env=environment(cwd), capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def dvc(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "dvc", *words, cwd=folder, check=check)
