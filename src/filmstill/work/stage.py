"""Run a stage's `main` in its work folder: resume, finish, publish, or say in one line why not."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

import filmstill
from filmstill.errors import FilmstillError, GateError
from filmstill.runtime.exit import exit_code, run_script
from filmstill.runtime.files import write_json
from filmstill.work import graph
from filmstill.work.folder import WORK, locked, publish

DATA = Path("data")


@dataclass(frozen=True)
class Stage:
    """Where a stage works. `out` mirrors data/: out/"teacher"/"x" is published as data/teacher/x."""

    name: str
    work: Path

    @property
    def out(self) -> Path:
        return self.work / "out"


def run(name: str, main: Callable[[Stage], None], before: Callable[[Path], None]) -> None:
    """The body of every stage script; exits with 0 published, 1 gate, 2 bad input, 130 or 143 stopped.

    before: called with the repository's root before the work folder is used.
    """
    run_script(lambda: exit_code(lambda: _run(name, main, before)))


def _run(name: str, main: Callable[[Stage], None], before: Callable[[Path], None]) -> None:
    root, published = _repository(), graph.stages()[name]
    before(root)
    inputs = graph.inputs(name)
    graph.refuse_sources_younger(inputs, filmstill.BEGAN)
    work = WORK / name / inputs.key
    parent = dvc_parent()
    with locked(work / "lock", f"{name}: another run of the same key is at work in {work}; waiting for it"):
        stage = Stage(name, work)
        digest = inputs.digest(with_gates=True)
        if _is_done(stage, digest):
            print(f"{name}: already made, in {work}", file=sys.stderr)
        else:
            _refuse_other(name, inputs, work)  # it may have waited for the lock
            (work / "done.json").unlink(missing_ok=True)  # what it vouches for is about to be written again
            try:
                main(stage)
            except GateError:
                _publish(stage, root, graph.outputs(published, ["metrics"]))  # by how much, for `dvc metrics show`
                raise
        _refuse_other(name, inputs, work)
        write_json(work / "done.json", {"inputs": digest, "files": files_of(stage.out)})
        if has_exited(parent):
            raise FilmstillError(f"{name}: dvc has gone; not published, `dvc repro` publishes the work kept in {work}")
        _publish(stage, root, graph.outputs(published))


def _publish(stage: Stage, root: Path, targets: list[Path]) -> None:
    for target in targets:
        publish(stage.out / target.relative_to(DATA), root / target)


def _refuse_other(name: str, inputs: graph.Inputs, work: Path) -> None:
    """Stop when the stage's inputs are no longer those that its work is named by."""
    if graph.inputs(name) != inputs:
        raise FilmstillError(
            f"{name}: its sources or params.yaml changed while it ran, so DVC would record inputs that "
            f"did not make this result; not published, the work is kept in {work}: run `dvc repro` again"
        )


def _is_done(stage: Stage, digest: str) -> bool:
    """Whether this work was finished, judged by the gates that stand now, and not touched since.

    Published files are links to those in `out`: whoever writes into one in data/ writes into the work as well.
    """
    marker = stage.work / "done.json"
    return marker.is_file() and json.loads(marker.read_text()) == {"inputs": digest, "files": files_of(stage.out)}


def files_of(folder: Path) -> dict[str, list[int]]:
    """Size and time of the last change, in ns, of every file in `folder`, by its path there."""
    found = ((path.relative_to(folder), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): [status.st_size, status.st_mtime_ns] for path, status in found}


def _repository() -> Path:
    """The folder of dvc.yaml, which must also be where the code comes from: its sources are what the key names."""
    root = graph.repository()
    source = Path(filmstill.__file__).resolve()
    if root.resolve() not in source.parents:
        raise FilmstillError(
            f"{source.parent}: is not this repository's src; run `dvc repro`, which sets PYTHONPATH=src"
        )
    os.environ["PYTHONPATH"] = str(root / "src")  # for the shards' own processes, which start in another folder
    return root


def dvc_parent() -> psutil.Process | None:
    """The dvc process that runs this stage, if one does."""
    for process in psutil.Process().parents():
        try:
            if any(Path(word).name == "dvc" for word in process.cmdline()[:3]):
                return process
        except psutil.Error:
            continue
    return None


def has_exited(process: psutil.Process | None) -> bool:
    """Whether a process that once ran (None: there was none) has ended."""
    return process is not None and not (process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
