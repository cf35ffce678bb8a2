"""Make a stage's shards as SLURM jobs: Snakemake submits them, this module waits for them.

Snakemake exits once it has submitted the jobs. It is not used to wait: it polls ever more rarely, up to every three
minutes, and waits endlessly for a job that it has lost (preempted and not requeued, forgotten by squeue, or while the
controller restarts). SLURM's queue is therefore the only record of what runs. Every run, also one that follows a killed
one, waits for the shard jobs that are alive and then submits the shards that are missing.
"""

import logging
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from filmstill.cluster import slurm
from filmstill.cluster.config import Cluster, cluster_name
from filmstill.cluster.job_checkout import cancel_with_experiment, has_lost_experiment
from filmstill.cluster.preflight import preflight
from filmstill.cluster.submit_shards import job_log, job_logs, latest_jobs, submit_shards
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.progress import progress
from filmstill.work.fanout import paths_of, prepare, reported_items
from filmstill.work.shard import last_line, shard_log
from filmstill.work.stage import dvc_parent, has_exited

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between two looks at jobs that are ending
MAX_TRIES = 2  # per shard, where a job was lost or refused by a limit of the queue
LOST_STATES = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")  # final states after which another job may succeed
FAILED_STATES = ("FAILED", "TIMEOUT", "OUT_OF_MEMORY")
STEP_ERROR = re.compile(r"^\w+: error: (.+)", re.M)  # in the log that SLURM writes of a job
ADVICE = {
    "TIMEOUT": "; raise stages.{}.time in {}",
    "OUT_OF_MEMORY": "; raise stages.{}.memory_gb in {}",
}

SeenJobs = dict[str, slurm.QueuedJob | None]  # jobs by id as SLURM last listed them; None: submitted, not listed yet


def make_as_jobs(stage: str, work: Path, shards: list[str], items: int, unit: str, cluster: Cluster) -> None:
    """Make the shards that are missing in `work`. Waits for a controller that does not answer.

    Raises FilmstillError with the reason why a shard failed or was cancelled. Raises Interrupted when a signal stops
    the wait; the jobs then go on, as they do when this process is killed, except in the folder of an experiment, which
    DVC removes: there they are cancelled.
    """
    root = Path.cwd()
    name = _job_name_prefix(stage, work)
    tries: Counter[str] = Counter()
    jobs: dict[str, str] = {}  # by shard, its latest job
    seen: SeenJobs = {}  # also the jobs of other processes
    refusal, parent = "", dvc_parent()
    _cancel_without_checkout(name, work)
    try:
        with progress(stage, items, unit=unit) as bar:
            while True:
                try:
                    _wait_for_jobs(bar, stage, name, work, cluster, seen, parent)
                    jobs = latest_jobs(work, shards, seen.keys() - jobs.values()) | jobs  # adds other processes' jobs
                    prepare(stage, work, paths_of(work, shards))  # no job is alive that could be making one
                    missing = _missing(work, shards)
                    if not missing:
                        return
                    _stop_if_cancelled(stage, seen)
                    for shard in missing:
                        job = jobs.get(shard)
                        _stop_if_failed(stage, work, shard, job, _final_state(job, seen), tries[shard], refusal)
                    preflight(stage, cluster, root)
                except slurm.Unreachable as error:
                    bar.set_postfix(refresh=False, jobs=f"SLURM does not answer: {error}")
                    time.sleep(cluster.poll_seconds)
                    continue
                resources = cluster.resources(stage)
                submitted, refusal = submit_shards(name, work, missing, resources, cluster.poll_seconds)
                tries.update(submitted.keys() or missing)  # shards refused by a queue limit get their try later
                jobs |= submitted
                seen |= dict.fromkeys(submitted.values())
    except (Interrupted, KeyboardInterrupt) as error:
        then = cancel_with_experiment(stage, work, "its jobs are", lambda: _live_jobs(name, {})) or (
            f"its jobs go on, `dvc repro` waits for them again, `python -m filmstill cancel {stage}` cancels them"
        )
        number = error.signal if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(f"{stage}: stopped; {then}", number) from None


def _cancel_without_checkout(name: str, work: Path) -> None:
    """Cancel jobs whose checkout was removed, as that of an experiment is: their sources are gone."""
    with suppress(slurm.Unreachable):
        if lost := [job.id for job in _live_jobs(name, {}) if has_lost_experiment(job, work)]:
            slurm.cancel(*lost)


def refuse_beside_jobs(stage: str, work: Path) -> None:
    """Raise FilmstillError where SLURM jobs make the shards of this folder, or may do so: no shard is made twice."""
    try:
        slurm.refuse_missing()
        while (live := _live_jobs(_job_name_prefix(stage, work), {})) and all(map(_is_ending, live)):
            time.sleep(POLL_SECONDS)
    except slurm.Unreachable as error:
        raise FilmstillError(
            f"{stage}: jobs may be at work in {work}, and SLURM does not answer ({error}); try again, or remove "
            f"{job_logs(work)} if no job is"
        ) from None
    if live:
        raise FilmstillError(
            f"{stage}: {len(live)} jobs are at work in {work}; `python -m filmstill cancel {stage}` ends them, or "
            f"executor: slurm in {cluster_name()} waits for them"
        )


def _job_name_prefix(stage: str, work: Path) -> str:
    """Prefix of the names of the shards' jobs. Snakemake does not allow a dot in it, and appends _<uuid>."""
    return slurm.job_name(stage, work.name, Path.cwd()).replace(".", "-")


def _wait_for_jobs(
    bar: Any, stage: str, name: str, work: Path, cluster: Cluster, seen: SeenJobs, parent: psutil.Process | None
) -> None:
    """Return when no job of that name is alive. Meanwhile shows progress and logs jobs that fail.

    Raises Interrupted when `parent`, the dvc process that runs this stage, has exited; FilmstillError where a job was
    restarted more than max_requeues times, and cancels that job.
    """
    while True:
        if has_exited(parent):
            raise Interrupted("the parent dvc process exited", signal.SIGTERM)
        before = _failed(seen)
        live = _live_jobs(name, seen)
        for number in sorted(_failed(seen) - before):
            path = job_log(work.resolve(), number)
            log.warning("%s: job %s failed; the others go on; its log: %s", stage, number, path)
        for job in live:
            if job.restarts > cluster.max_requeues:  # the job itself may be what makes its nodes fail
                slurm.cancel(job.id)
                raise FilmstillError(
                    f"{stage}: job {job.id} lost its node more often than max_requeues of {cluster_name()} allows, "
                    f"and is cancelled; the others go on; its log: {job_log(work.resolve(), job.id)}"
                )
        bar.set_postfix(refresh=False, jobs=_states(live))
        bar.update(reported_items(work) - bar.n)
        if not live:
            return
        time.sleep(cluster.poll_seconds)


def _failed(seen: SeenJobs) -> set[str]:
    return {number for number, job in seen.items() if job is not None and job.state in FAILED_STATES}


def _stop_if_cancelled(stage: str, seen: SeenJobs) -> None:
    """Stop if any shard job was cancelled, by whichever process submitted it."""
    cancelled = [number for number, job in seen.items() if job is not None and job.state == "CANCELLED"]
    if cancelled:
        raise FilmstillError(
            f"{stage}: {len(cancelled)} of its jobs were cancelled ({cancelled[0]} first); finished shards are kept, "
            "`dvc repro` makes the rest"
        )


def _stop_if_failed(
    stage: str, work: Path, shard: str, job: str | None, end: slurm.QueuedJob | None, tries: int, refusal: str
) -> None:
    """Raise FilmstillError for a shard that failed for good, or has used up its tries.

    job, end: its latest job and that job's final state. refusal: why SLURM accepted no job.
    """
    if job is None:
        if tries < MAX_TRIES:
            return
        reason = refusal
    else:
        if tries < MAX_TRIES and (end is None or end.state in LOST_STATES):
            return
        reason = _failure_reason(stage, work, shard, job, end)
    raise FilmstillError(f"{stage}: shard {shard} failed: {reason}; finished shards are kept")


def _final_state(number: str | None, seen: SeenJobs) -> slurm.QueuedJob | None:
    """A finished job as last seen, or from accounting where SLURM forgot it before its end was seen; None: unknown."""
    job = seen.get(number) if number else None
    return job if number is None or (job is not None and not job.alive) else slurm.find(number)


def _live_jobs(name: str, seen: SeenJobs) -> list[slurm.QueuedJob]:
    """The jobs with that name prefix that are pending or running.

    Updates `seen`, which keeps the final states of the others: SLURM forgets them within minutes. A job that was ending
    when it was first found, as after `filmstill cancel`, is waited for, but how it ends does not count.
    """
    jobs = [job for job in slurm.queued() if job.name.startswith(f"{name}_")]
    seen |= {job.id: job for job in jobs if job.id in seen or (job.alive and not _is_ending(job))}
    return [job for job in jobs if job.alive]


def _is_ending(job: slurm.QueuedJob) -> bool:
    return job.state == "COMPLETING"


def _states(jobs: list[slurm.QueuedJob]) -> str:
    """Number of jobs by state, such as `2 running, 3 pending (Priority)`; `none` without jobs."""
    counts = Counter(_state(job) for job in jobs)
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"


def _state(job: slurm.QueuedJob) -> str:
    if job.is_held:
        return f"held ({job.reason}: `scontrol release {job.id}`)"
    return f"{job.state.lower()} ({job.waits_for})" if job.state == "PENDING" else job.state.lower()


def _missing(work: Path, shards: list[str]) -> list[str]:
    """The shards that do not exist. Lists the folder, so that NFS looks for files written by other machines."""
    there = {path.stem for path in (work / "shards").glob("*.safetensors")}
    return [shard for shard in shards if shard not in there]


def _failure_reason(stage: str, work: Path, shard: str, job: str, end: slurm.QueuedJob | None) -> str:
    """SLURM's reason if it ended the job, else the last line of the shard's log, or SLURM's error if that is empty."""
    path = shard_log(work, shard)
    if end is not None and end.state == "COMPLETED":
        return f"job {job} completed, but its shard is not visible here; check that the nodes see this folder"
    if end is not None and end.state != "FAILED":
        advice = ADVICE.get(end.state, "").format(stage, cluster_name())
        return f"SLURM ended job {job}: {end.state}{advice} (log: {path})"
    if not path.is_file() or not path.stat().st_size:  # the job failed before the shard's process started
        path = job_log(work.resolve(), job)
        errors = STEP_ERROR.findall(path.read_text(errors="replace")) if path.is_file() else []
        return f"{errors[0] if errors else f'job {job} printed nothing'} (log: {path})"
    return f"{last_line(path)} (log: {path})"
