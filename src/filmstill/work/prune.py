"""Remove work folders that no branch and no experiment needs."""

import fcntl
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from filmstill.errors import FilmstillError
from filmstill.params.load import Values, to_plain
from filmstill.work.folder import WORK
from filmstill.work.graph import Inputs, inputs, stages


def prune(dry_run: bool, live: set[tuple[str, str]]) -> None:
    """Remove, oldest first, folders of .work whose key no dvc.lock has and the current sources do not give.

    A dvc.lock counts of every branch, every DVC experiment and the working tree.

    live: (stage, key) of the jobs that are working now; their folders are kept. Folders whose lock is held are kept
    too. Raises FilmstillError, before anything is removed, where a dvc.lock cannot be read.
    """
    needed = needed_keys()
    folders = [folder for folder in WORK.glob("*/*") if folder.is_dir()]
    sizes = {folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders}
    total = sum(sizes.values())
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime):
        if (folder.parent.name, folder.name) in needed:
            continue
        if _in_use(folder) or (folder.parent.name, folder.name) in live:
            print(f"in use, kept: {folder}")
            continue
        print(f"{'would remove' if dry_run else 'removed'} {folder} ({sizes[folder] / 1e6:.1f} MB)")
        total -= sizes[folder]
        if not dry_run:
            shutil.rmtree(folder)
    print(f"{total / 1e6:.1f} MB in {WORK} {'would be' if dry_run else 'are'} left")


def needed_keys() -> set[tuple[str, str]]:
    """(stage, key) of every entry in the dvc.lock of every branch and experiment, and of the current sources."""
    branches = _git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/exps").split()
    locks = {branch: _git("show", f"{branch}:dvc.lock") for branch in branches}
    if Path("dvc.lock").exists():
        locks["the working tree"] = Path("dvc.lock").read_text(encoding="utf-8")
    needed = set()
    for where, lock in locks.items():
        needed |= _keys_of(where, lock) if lock.strip() else set()
    params = Values.read()
    for stage in stages(params):
        with suppress(FilmstillError):  # a stage whose inputs are not made yet has no folder
            needed.add((stage, inputs(stage, params).key))
    return needed


def _keys_of(where: str, lock: str) -> set[tuple[str, str]]:
    """(stage, key) of every entry in one dvc.lock. Raises FilmstillError where it cannot be read."""
    try:
        entries = to_plain(OmegaConf.create(lock), f"dvc.lock of {where}")["stages"]
        return {(stage, Inputs.of_lock(entry).key) for stage, entry in entries.items()}
    except (OmegaConfBaseException, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise FilmstillError(
            f"dvc.lock of {where}: cannot be read ({type(error).__name__}); nothing is pruned"
        ) from None


def _in_use(folder: Path) -> bool:
    """Whether a process holds the folder's lock."""
    if not (folder / "lock").exists():
        return False
    with (folder / "lock").open("r+") as file:  # NFS grants an exclusive lock only on a file opened for writing
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _git(*words: str) -> str:
    """Output of a git command; empty where it fails (no repository, no such file on that branch)."""
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout
