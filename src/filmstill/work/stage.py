"""Run a stage's `main` in its work folder, then publish its outputs, or fail with one line."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import filmstill
from filmstill.errors import FilmstillError, GateError
from filmstill.params.load import Values
from filmstill.runtime.exit import exit_code, run_script
from filmstill.runtime.files import read_json, remove, sha256_of, write_json
from filmstill.work import graph
from filmstill.work.folder import WORK, locked, publish

log = logging.getLogger(__name__)

DATA = Path("data")
DONE = "done.json"  # of a work folder whose stage is made: a digest of its inputs, and of every file in `out`


@dataclass(frozen=True)
class Stage:
    """A stage's name, its work folder, and the parameters that the folder's key is made of.

    `out` mirrors data/: out/"teacher"/"x" is published as data/teacher/x.
    """

    name: str
    work: Path
    params: Values

    @property
    def out(self) -> Path:
        return self.work / "out"

    def empty_out(self) -> None:
        """Remove everything from `out`: its files are made from checkpoints and shards, which are verified."""
        remove(self.out)


def run(name: str, main: Callable[[Stage], None], before: Callable[[Path], None], pipeline: Path = graph.ROOT) -> None:
    """The body of every stage script. Never returns: it ends the process.

    Exit codes: 0 published, 1 gate missed, 2 bad input, 130 or 143 stopped by a signal.
    before: called with the repository's root before the work folder is used.
    pipeline: whose dvc.yaml lists the stage.
    """
    run_script(lambda: exit_code(lambda: _run(name, main, before, pipeline)))


def _run(name: str, main: Callable[[Stage], None], before: Callable[[Path], None], pipeline: Path) -> None:
    root, read = _repository(), graph.read_params(pipeline)
    published = graph.stages(read, pipeline)[name]
    before(root)
    inputs = graph.inputs(name, read, pipeline)
    graph.refuse_edited_sources(inputs, filmstill.BEGAN)
    work = WORK / graph.work_name(name, pipeline) / inputs.key
    parent = dvc_parent()
    with locked(work / "lock", f"{name}: another run of the same key holds {work}; waiting for it"):
        stage = Stage(name, work, inputs.values)
        digest = inputs.digest(with_gates=True)
        made = _is_done(stage, digest)
        if made:
            log.info("%s: already made, in %s", name, work)
        else:
            inputs = _unchanged_inputs(name, inputs, work, pipeline)  # it may have waited for the lock
            remove(work / DONE)  # the files that it lists are about to be written again
            inputs.write(work)
            try:
                main(stage)
            except GateError:
                _publish(stage, root, graph.outputs(published, ["metrics"]))  # `dvc metrics show` shows by how much
                raise
            files = files_of(stage.out)  # before the last look at the inputs: it may take minutes
        now = _unchanged_inputs(name, inputs, work, pipeline)
        if not made:
            graph.refuse_rewritten(inputs, now, work)
            write_json(work / DONE, {"inputs": digest, "files": files})
        if has_exited(parent):
            raise FilmstillError(
                f"{name}: the parent dvc process exited; output not published, `dvc repro` publishes the work kept in "
                f"{work}"
            )
        _publish(stage, root, graph.outputs(published))


def _publish(stage: Stage, root: Path, targets: list[Path]) -> None:
    for target in targets:
        publish(stage.out / target.relative_to(DATA), root / target)


def _unchanged_inputs(name: str, inputs: graph.Inputs, work: Path, pipeline: Path) -> graph.Inputs:
    """The stage's current inputs. Raises FilmstillError where they are not `inputs`, whose key names `work`."""
    graph.refuse_edited_sources(inputs, filmstill.BEGAN)  # also edited and put back: it may have been imported between
    now = graph.inputs(name, graph.read_params(pipeline), pipeline)
    if now != inputs:
        raise FilmstillError(
            f"{name}: its sources or {pipeline / 'params.yaml'} changed while it ran, so DVC would record inputs that "
            f"did not make this result; not published, the work is kept in {work}: run `dvc repro` again"
        )
    return now


def _is_done(stage: Stage, digest: str) -> bool:
    """Whether the stage finished with these inputs, gates included, and its files are still those that it made.

    Published files are hard links to those in `out`: a write into a file in data/ changes the work folder too.
    """
    with suppress(FilmstillError):  # no marker, or a damaged one: the stage is made again
        return read_json(stage.work / DONE) == {"inputs": digest, "files": files_of(stage.out)}
    return False


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder`, by its path relative to it."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in found}


def _repository() -> Path:
    """The repository's root. Raises FilmstillError if filmstill was imported from elsewhere: keys are of this src."""
    root = graph.repository()
    source = Path(filmstill.__file__).resolve()
    if root.resolve() not in source.parents:
        raise FilmstillError(
            f"{source.parent}: is not this repository's src; run `dvc repro`, which sets PYTHONPATH=src"
        )
    os.environ["PYTHONPATH"] = str(root / "src")  # for the processes of shards, which start in another folder
    return root


def dvc_parent() -> psutil.Process | None:
    """The dvc process among this process's parents; None where dvc did not start it."""
    for process in psutil.Process().parents():
        try:
            if any(Path(word).name == "dvc" for word in process.cmdline()[:3]):
                return process
        except psutil.Error:
            continue
    return None


def has_exited(process: psutil.Process | None) -> bool:
    """Whether `process` has ended; False for None."""
    return process is not None and not (process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
