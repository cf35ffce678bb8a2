"""Remove work folders that no branch, no experiment and no checkout needs."""

import contextlib
import fcntl
import io
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from filmstill.errors import FilmstillError
from filmstill.params.load import Values, to_plain
from filmstill.work.checkouts import EXPERIMENTS, checkouts
from filmstill.work.folder import WORK
from filmstill.work.graph import Inputs, inputs, stages

Keys = set[tuple[str, str]]  # (stage, key)
QUEUED = ("refs/exps/celery/stash", "refs/exps/celery/failed")  # DVC keeps queued and failed experiments in reflogs


def prune(dry_run: bool, live: Keys) -> None:
    """Remove, oldest first, folders of .work whose key no dvc.lock has and no sources give.

    These dvc.lock and sources count: of every branch and every DVC experiment, finished, running, queued or failed, and
    of every checkout that shares this .work.

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


def needed_keys() -> Keys:
    """The keys that the dvc.lock of a branch or an experiment names, and those of checkouts and queued experiments."""
    needed: Keys = set()
    for branch in _git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/exps").split():
        needed |= _keys_of(branch, _git("show", f"{branch}:dvc.lock"))
    for folder in _all_checkouts():
        where = "the working tree" if folder == Path.cwd().resolve() else str(folder)
        needed |= _keys_in(folder, where)
    for ref in QUEUED:
        for commit in _git("log", "--walk-reflogs", "--format=%H", ref).split():
            needed |= _keys_of_commit(commit)
    return needed


def _all_checkouts() -> list[Path]:
    """The main checkout, its worktrees, and the folders in which DVC runs experiments of any of them."""
    main = checkouts(Path.cwd())[-1]
    lines = _git("worktree", "list", "--porcelain").splitlines()
    worktrees = {Path(line.partition(" ")[2]) for line in lines if line.startswith("worktree ")}
    found = {main, Path.cwd().resolve(), *worktrees}
    for depth in ("*", "*/*"):  # of the queue; of `dvc exp run --temp`
        found |= {graph.parent for each in tuple(found) for graph in (each / EXPERIMENTS).glob(f"{depth}/dvc.yaml")}
    return sorted(folder for folder in found if (folder / "dvc.yaml").is_file())


def _keys_of_commit(commit: str) -> Keys:
    """The keys that the files of a commit give, and those that its dvc.lock names."""
    archive = subprocess.run(["git", "archive", commit], capture_output=True, check=False).stdout
    if not archive:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="fully_trusted")  # of this repository; a link in it may lead anywhere
        return _keys_in(Path(folder), f"the queued experiment {commit[:7]}")


def _keys_in(folder: Path, where: str) -> Keys:
    """The keys that the files in a folder give, and those that its dvc.lock names."""
    lock = folder / "dvc.lock"
    needed = _keys_of(where, lock.read_text(encoding="utf-8") if lock.is_file() else "")
    with suppress(FileNotFoundError, FilmstillError), contextlib.chdir(folder):  # not there: the experiment has ended
        params = Values.read()
        for stage in stages(params):
            with suppress(FilmstillError):  # a stage whose inputs are not made yet has no folder
                needed.add((stage, inputs(stage, params).key))
    return needed


def _keys_of(where: str, lock: str) -> Keys:
    """The key of every entry in one dvc.lock. Raises FilmstillError where it cannot be read."""
    if not lock.strip():
        return set()
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
