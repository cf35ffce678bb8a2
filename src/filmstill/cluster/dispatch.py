"""Where a stage's `main` runs: in this process, or as a job of SLURM's that this process waits for.

Notable: whatever happened before, a run does what is left: a job that has made the stage is not run again, one that is
alive is attached to, one that is gone is submitted again and goes on from the last checkpoint; a crash is not tried
again, a lost node or process is, `max_requeues` times.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filmstill.cluster import slurm
from filmstill.cluster.config import LOCAL, Cluster, read_cluster
from filmstill.cluster.follow import follow
from filmstill.cluster.job import CRASHED, DONE, GATE, began, ended, has_left, last_start, left, over_limit
from filmstill.cluster.preflight import preflight
from filmstill.cluster.submit import JOBS, Submission, alive, latest, next_run, note_cancelled, submit
from filmstill.errors import FilmstillError, GateError
from filmstill.work import graph
from filmstill.work.shard import last_line, last_lines
from filmstill.work.stage import Stage, files_of

SHOWN = 12  # lines of a traceback


def dispatched(main: Callable[[Stage], None]) -> Callable[[Stage], None]:
    """`main` itself where cluster.yaml says local or is not there; where it says slurm, a job that calls it.

    Raises FilmstillError with the one line of a job that crashed, was cancelled or was lost too often, GateError for a
    missed gate, Interrupted when told to stop waiting.
    """

    def make(stage: Stage) -> None:
        cluster, root = read_cluster(), Path.cwd()
        if cluster.executor == LOCAL:
            _refuse_two(stage, root)
            main(stage)
        else:
            _make_by_job(stage, cluster, root)

    return make


def _refuse_two(stage: Stage, root: Path) -> None:
    """Stop where a job is at work in the stage's folder, which this process would work in too."""
    folder = latest(stage.work)
    if folder is None or (ended(folder) is not None and not slurm.available()):
        return
    try:
        slurm.refuse_missing()
        submission = alive(stage, root)
    except slurm.Unreachable as error:
        raise FilmstillError(
            f"{stage.name}: a job may be at work in {stage.work}, and SLURM does not answer ({error}); try again, or "
            f"remove {stage.work / JOBS} where none is"
        ) from None
    if submission is not None:
        raise FilmstillError(
            f"{stage.name}: job {submission.id} is at work in {stage.work}; `python -m filmstill cancel {stage.name}` "
            "ends it, or executor: slurm in cluster.yaml attaches to it"
        )


def _make_by_job(stage: Stage, cluster: Cluster, root: Path) -> None:
    lost = 0
    while True:
        digest = graph.inputs(stage.name).digest(with_gates=True)
        found = _attached_or_submitted(stage, cluster, root, digest, cluster.max_requeues - lost)
        if found is None:
            return
        how, submission = found
        was_over = ended(Path(submission.folder)) is not None  # and SLURM has not put it away yet
        _say(f"{stage.name}: {how} job {submission.id}; its log: {submission.log('err')}")
        job = follow(stage.name, submission, cluster.poll_seconds)
        if (end := ended(Path(submission.folder))) is None:
            lost += losses(stage.name, submission, job, cluster)
            if lost > cluster.max_requeues:
                raise FilmstillError(over_limit(stage.name, Path(submission.folder)))
            _say(f"{stage.name}: job {submission.id} is gone ({job.state if job else 'unknown to SLURM'}); once more")
        elif end["outcome"] in (DONE, GATE) and end.get("inputs") != digest:
            _say(f"{stage.name}: job {submission.id} was judged by gates that no longer stand; once more")
        elif end["outcome"] == GATE:
            raise GateError(end["message"])
        elif end["outcome"] != DONE:
            raise _failure(stage.name, submission, end, seen=not was_over)
        else:
            return


def _failure(stage: str, submission: Submission, end: dict[str, Any], seen: bool) -> FilmstillError:
    """What a job that ended for a reason of its own is told by; the end of its traceback is shown first.

    seen: whether the first process's log was shown as it came.
    """
    log = submission.log("err", end.get("rank", 0))
    if end["outcome"] != CRASHED:
        return FilmstillError(f"{end['message']} (log: {log})")
    if end.get("rank", 0) != 0 or not seen:
        _say("\n".join(last_lines(log, SHOWN)))
    return FilmstillError(f"{stage}: job {submission.id} crashed: {end['message']}; its log: {log}")


def _attached_or_submitted(
    stage: Stage, cluster: Cluster, root: Path, digest: str, restarts: int
) -> tuple[str, Submission] | None:
    """How a job came by, and which; None: all is made. Waits for a controller that does not answer."""
    said = False
    while True:
        try:
            if (submission := alive(stage, root)) is not None:
                return "attached to", submission
            if _is_made(stage, digest):
                return None
            preflight(stage.name, cluster, root)
            return "submitted", submit(stage, cluster, root, restarts)
        except slurm.Unreachable as error:
            if not said:
                _say(f"{stage.name}: SLURM's controller does not answer ({error}); waiting for it")
            said = True
            time.sleep(cluster.poll_seconds)


def _is_made(stage: Stage, digest: str) -> bool:
    """Whether the latest job made the stage's `out`, by the gates that stand now, and nobody wrote to it since."""
    folder = latest(stage.work)
    end = ended(folder) if folder else None
    made = {"outcome": DONE, "message": "", "inputs": digest, "files": files_of(stage.out)}
    return end == made


def losses(stage: str, submission: Submission, job: slurm.Job | None, cluster: Cluster) -> int:
    """How many starts a job lost that ended without a word. Raises FilmstillError where another would end the same."""
    state, log, folder = job.state if job else "", submission.log("err"), Path(submission.folder)
    if state == "CANCELLED":
        note_cancelled(folder)
        raise FilmstillError(f"{stage}: job {submission.id} was cancelled; `dvc repro` {next_run(folder.parents[1])}")
    # Accounting, where it alone still knows of the job, does not count its starts.
    if state == "TIMEOUT" and not has_left(folder, max(job.restarts if job else 0, last_start(folder))):
        raise FilmstillError(
            f"{stage}: job {submission.id} met its time limit before it could save: a step and a checkpoint take "
            f"longer than signal_seconds ({cluster.asked(stage).signal_seconds}); set more in cluster.yaml (log: {log})"
        )
    if state == "OUT_OF_MEMORY":
        asked = cluster.asked(stage).memory_gb
        raise FilmstillError(
            f"{stage}: job {submission.id} took more memory than it asked for; memory_gb: is {asked}, set more in "
            f"cluster.yaml; its log: {log}"
        )
    if job and state == "FAILED" and not began(folder) and not left(folder):
        said = last_line(log) or f"no log; SLURM's reason: {job.reason}"
        raise FilmstillError(f"{stage}: job {submission.id} ended before python began: {said}; its log: {log}")
    return max(1 + (job.restarts if job else 0) - left(folder), 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
