"""Temporary copies of this repository, in which a test runs the pipeline."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def clone(folder: Path, profile: str = "smoke") -> Path:
    """A new repository at `folder` with the working tree's files, the parameters of `profile`, and one commit."""
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
    """Commit every change in the repository."""
    run("git", "add", "--all", cwd=folder)
    run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", message, cwd=folder)


def environment(folder: Path) -> dict[str, str]:
    """Environment in which commands import the sources of `folder` and find this interpreter's tools on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(folder / "src"), "PATH": path}


def run(*words: str, cwd: Path, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in `cwd`. check: assert that it succeeds, showing its output where it does not."""
    done = subprocess.run(words, cwd=cwd, env=environment(cwd), capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def dvc(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a dvc command in `folder`."""
    return run(sys.executable, "-m", "dvc", *words, cwd=folder, check=check)
