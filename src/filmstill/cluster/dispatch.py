"""Run a stage's `main` in this process, or as a SLURM job that this process waits for.

A run does only what is missing, whatever happened before. It accepts the result of a job that has finished and attaches
to one that is alive; otherwise it submits a new one, which resumes from the last checkpoint. A crash is not retried; a
lost node or process is, up to `max_requeues` times.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstill.cluster import slurm
from filmstill.cluster.config import LOCAL, Cluster, cluster_name, read_cluster
from filmstill.cluster.follow import follow
from filmstill.cluster.job import (
    CRASHED,
    DONE,
    GATE,
    clean_exits,
    end_record,
    exited_cleanly,
    has_started,
    latest_start,
    too_many_losses,
)
from filmstill.cluster.preflight import preflight
from filmstill.cluster.submit import JOBS, Submission, latest_folder, live_job, mark_cancelled, next_run, submit
from filmstill.errors import FilmstillError, GateError
from filmstill.params.load import Values
from filmstill.work import graph
from filmstill.work.shard import last_error, last_lines
from filmstill.work.stage import Stage, files_of

log = logging.getLogger(__name__)

TRACEBACK_LINES = 12  # shown of a crash


def dispatched(main: Callable[[Stage], None]) -> Callable[[Stage], None]:
    """A function that runs `main` here where cluster.yaml reads `executor: local` or is missing, else as a SLURM job.

    It raises FilmstillError with one line for a job that crashed, was cancelled or was lost too often, GateError for a
    missed gate, Interrupted when a signal stops the wait.
    """

    def make(stage: Stage) -> None:
        cluster, root = read_cluster(), Path.cwd()
        if cluster.executor == LOCAL:
            _refuse_beside_job(stage, root)
            make_here(main, stage)
        else:
            _make_by_job(stage, cluster, root)

    return make


def make_here(main: Callable[[Stage], None], stage: Stage) -> None:
    """Make the stage's `out` in this process."""
    stage.empty_out()
    main(stage)


def _refuse_beside_job(stage: Stage, root: Path) -> None:
    """Raise FilmstillError where a job is at work in the stage's folder, or may be: two trainers would share it."""
    folder = latest_folder(stage.work)
    if folder is None or (end_record(folder) is not None and not slurm.available()):
        return
    try:
        slurm.refuse_missing()
        submission = live_job(stage, root)
    except slurm.Unreachable as error:
        raise FilmstillError(
            f"{stage.name}: a job may be at work in {stage.work}, and SLURM does not answer ({error}); try again, or "
            f"remove {stage.work / JOBS} if no job is"
        ) from None
    if submission is not None:
        raise FilmstillError(
            f"{stage.name}: job {submission.id} is at work in {stage.work}; `python -m filmstill cancel {stage.name}` "
            f"ends it, or executor: slurm in {cluster_name()} attaches to it"
        )


def _make_by_job(stage: Stage, cluster: Cluster, root: Path) -> None:
    losses = 0
    while True:
        current = graph.inputs(stage.name, Values.read())
        digest = replace(current, params=stage.params.values).digest(with_gates=True)
        found = _attach_or_submit(stage, cluster, root, digest, cluster.max_requeues - losses)
        if found is None:
            return
        how, submission = found
        was_over = end_record(Path(submission.folder)) is not None  # before this process attached
        log.info("%s: %s job %s; its log: %s", stage.name, how, submission.id, submission.log("err"))
        job = follow(stage.name, submission, cluster.poll_seconds)
        if (end := end_record(Path(submission.folder))) is None:
            losses += count_losses(stage.name, submission, job, cluster)
            if losses > cluster.max_requeues:
                raise FilmstillError(too_many_losses(stage.name, Path(submission.folder)))
            state = job.state if job else "unknown to SLURM"
            log.warning("%s: job %s was lost (%s); submitting it again", stage.name, submission.id, state)
        elif end["outcome"] in (DONE, GATE) and end.get("inputs") != digest:
            log.info("%s: job %s ran with gates that changed since; submitting it again", stage.name, submission.id)
        elif end["outcome"] == GATE:
            raise GateError(end["message"])
        elif end["outcome"] != DONE:
            raise _failure(stage.name, submission, end, shown=not was_over)
        else:
            return


def _failure(stage: str, submission: Submission, end: dict[str, Any], shown: bool) -> FilmstillError:
    """The error for a job whose record says that it failed. Logs the end of a crash's traceback unless it was shown.

    shown: whether rank 0's log was forwarded while the job ran.
    """
    path = submission.log("err", end.get("rank", 0))
    if end["outcome"] != CRASHED:
        return FilmstillError(f"{end['message']} (log: {path})")
    if end.get("rank", 0) != 0 or not shown:
        log.info("\n".join(last_lines(path, TRACEBACK_LINES)))
    return FilmstillError(f"{stage}: job {submission.id} crashed: {end['message']}; its log: {path}")


def _attach_or_submit(
    stage: Stage, cluster: Cluster, root: Path, digest: str, max_restarts: int
) -> tuple[str, Submission] | None:
    """("attached to" or "submitted", the job); None: the stage is made. Waits for a controller that does not answer."""
    warned = False
    while True:
        try:
            if (submission := live_job(stage, root)) is not None:
                return "attached to", submission
            if _is_made(stage, digest):
                return None
            preflight(stage.name, cluster, root)
            return "submitted", submit(stage, cluster, root, max_restarts)
        except slurm.Unreachable as error:
            if not warned:
                log.warning("%s: SLURM's controller does not answer (%s); waiting for it", stage.name, error)
            warned = True
            time.sleep(cluster.poll_seconds)


def _is_made(stage: Stage, digest: str) -> bool:
    """Whether the latest job made the stage's `out` with these inputs, gates included, and it is unchanged since."""
    folder = latest_folder(stage.work)
    end = end_record(folder) if folder else None
    made = {"outcome": DONE, "message": "", "inputs": digest, "files": files_of(stage.out)}
    return end == made


def count_losses(stage: str, submission: Submission, job: slurm.QueuedJob | None, cluster: Cluster) -> int:
    """Number of lost starts of a job that ended without a record.

    Raises FilmstillError where another start would end the same way, or the job was cancelled.
    """
    state, path, folder = job.state if job else "", submission.log("err"), Path(submission.folder)
    if state == "CANCELLED":
        mark_cancelled(folder)
        raise FilmstillError(f"{stage}: job {submission.id} was cancelled; `dvc repro` {next_run(folder.parents[1])}")
    # Where only accounting still knows the job, its restarts are unknown there; the job's own file has them.
    if state == "TIMEOUT" and not exited_cleanly(folder, max(job.restarts if job else 0, latest_start(folder))):
        raise FilmstillError(
            f"{stage}: job {submission.id} reached its time limit before it could save: a step and a checkpoint take "
            f"longer than signal_seconds ({cluster.resources(stage).signal_seconds}); set more in "
            f"{cluster_name()} (log: {path})"
        )
    if state == "OUT_OF_MEMORY":
        requested = cluster.resources(stage).memory_gb
        raise FilmstillError(
            f"{stage}: job {submission.id} used more memory than it requested; memory_gb: is {requested}, set more in "
            f"{cluster_name()}; its log: {path}"
        )
    if job and state == "FAILED" and not has_started(folder) and not clean_exits(folder):
        reason = last_error(path) or f"no log; SLURM's reason: {job.reason}"
        raise FilmstillError(f"{stage}: job {submission.id} ended before its stage started: {reason}; its log: {path}")
    return max(1 + (job.restarts if job else 0) - clean_exits(folder), 0)
