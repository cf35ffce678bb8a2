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
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.work import graph
from filmstill.work.checkouts import EXPERIMENTS, checkouts
from filmstill.work.folder import WORK
from filmstill.work.graph import PRETRAIN, ROOT, Inputs, Lock, outputs, param_names, read_params, stages, work_name

Keys = set[tuple[str, str]]  # (folder in .work, key)
UNKNOWN = ""  # hash of a dependency that is not there
QUEUED = ("refs/exps/celery/stash", "refs/exps/celery/failed")  # DVC keeps queued and failed experiments in reflogs


def prune(dry_run: bool, live: Keys) -> None:
    """Remove, oldest first, folders of .work whose key no dvc.lock has and no sources give.

    These dvc.lock and sources count: of every branch and every DVC experiment, finished, running, queued or failed, and
    of every checkout that shares this .work.

    live: (folder in .work, key) of the jobs that are working now; their folders are kept. Folders whose lock is held
    are kept too. Raises FilmstillError, before anything is removed, where a dvc.lock cannot be read.
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
        for pipeline in (ROOT, PRETRAIN):
            if text := _git("show", f"{branch}:{pipeline / 'dvc.lock'}"):  # empty: the branch has none
                needed |= _keys_of(_read_lock(text.encode(), branch), pipeline)
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
        found |= {file.parent for each in tuple(found) for file in (each / EXPERIMENTS).glob(f"{depth}/dvc.yaml")}
    return sorted(folder for folder in found if (folder / "dvc.yaml").is_file() and not _is_pretrain(folder))


def _is_pretrain(folder: Path) -> bool:
    """Whether it is the folder of that pipeline in a checkout."""
    return folder.name == PRETRAIN.name and (folder.parent / "dvc.yaml").is_file()


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
    needed: Keys = set()
    work = WORK.resolve()
    for pipeline in (ROOT, PRETRAIN):
        file = folder / pipeline / "dvc.lock"
        lock = _read_lock(file.read_bytes(), where) if file.is_file() else {}
        needed |= _keys_of(lock, pipeline)
        if pipeline != ROOT and not (folder / pipeline / "dvc.yaml").is_file():  # a commit from before it was there
            continue
        with suppress(FileNotFoundError), contextlib.chdir(folder):  # not there: the experiment has ended
            try:
                needed |= _Expected(read_params(pipeline), lock, pipeline).keys(work)
            except FilmstillError as error:
                raise FilmstillError(f"{where}: {error}; nothing is pruned") from None
    return needed


def _keys_of(lock: Lock, pipeline: Path) -> Keys:
    return {(work_name(stage, pipeline), inputs.key) for stage, (inputs, _outs) in lock.items()}


def _read_lock(text: bytes, where: str) -> Lock:
    return graph.read_lock(text, f"dvc.lock of {where}", "nothing is pruned")


class _Expected:
    """The inputs with which a pipeline's stages will run in the current folder.

    A dependency's hash is unknown where the stage that makes it must run first, as after a change of its parameters:
    dvc.lock has the hash of what it made before. It is also unknown where a file is missing, as released weights are in
    the commit of an experiment.
    """

    def __init__(self, params: Values, lock: Lock, pipeline: Path) -> None:
        self.params, self.lock, self.stages, self.pipeline = params, lock, stages(params, pipeline), pipeline
        self.makers = {str(path): name for name, stage in self.stages.items() for path in outputs(stage)}
        self.known: dict[str, Inputs] = {}

    def keys(self, work: Path) -> Keys:
        """The stages' keys; for a stage with unknown hashes, those of all folders in `work` that agree in the rest."""
        found: Keys = set()
        for stage in self.stages:
            with suppress(FilmstillError):  # a stage whose parameters are missing has no folder
                inputs, name = self._inputs(stage), work_name(stage, self.pipeline)
                found.add((name, inputs.key))
                if UNKNOWN in inputs.deps.values():
                    found |= {(name, folder.name) for folder in (work / name).glob("*") if _agrees(inputs, folder)}
        return found

    def _inputs(self, stage: str) -> Inputs:
        if stage not in self.known:
            deps = {path: self._md5(path) for path in self.stages[stage].get("deps", [])}
            params = {key: self._param(key) for key in param_names(self.stages[stage])}
            self.known[stage] = Inputs(deps, params)
        return self.known[stage]

    def _param(self, key: str) -> Any:
        """A section, or a value in one: teacher.released."""
        section, *names = key.split(".")
        value = self.params[section]
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _md5(self, path: str) -> str:
        with suppress(FilmstillError):  # no such file, or the stage that makes it has no parameters
            if path not in self.makers:
                return graph.md5_of(Path(path))
            recorded, outs = self.lock.get(self.makers[path], (None, {}))
            if recorded is not None and recorded.key == self._inputs(self.makers[path]).key:
                return outs.get(path, UNKNOWN)
        return UNKNOWN


def _agrees(inputs: Inputs, folder: Path) -> bool:
    """Whether a work folder was made with these inputs, whatever it had where their hashes are unknown."""
    with suppress(FilmstillError, OSError):  # no inputs.json, or a damaged one
        found = Inputs.read(folder).deps
        deps = {path: found.get(path, UNKNOWN) if md5 == UNKNOWN else md5 for path, md5 in inputs.deps.items()}
        return Inputs(deps, inputs.params).key == folder.name
    return False


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
