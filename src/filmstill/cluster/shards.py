"""A stage's shards as jobs of SLURM's: Snakemake submits them, this waits for them.

Notable: Snakemake leaves once it has submitted. As a watcher it asks ever more rarely, up to every three minutes, and
waits for ever for a job it has lost sight of: preempted and not requeued, forgotten by squeue, or when the controller
restarts. So SLURM's queue is the one record of what runs, and a run that takes over from a killed one does what every
run does: wait for the shards' jobs that are alive, then ask for the shards that are missing.
"""

import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from filmstill.cluster import slurm
from filmstill.cluster.config import Cluster
from filmstill.cluster.preflight import preflight
from filmstill.cluster.shard_logs import last_jobs, log_of_job, logs
from filmstill.cluster.submit_shards import submit_shards
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.progress import progress
from filmstill.work.fanout import done
from filmstill.work.shard import last_line, log_of
from filmstill.work.stage import dvc_parent, has_exited

TRIES = 2  # of a shard whose job was lost, or refused by a limit of the queue
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")  # ends of a job that say nothing against the next
FAILED = ("FAILED", "TIMEOUT", "OUT_OF_MEMORY")
STEP_ERROR = re.compile(r"^\w+: error: (.+)", re.M)  # in SLURM's log of a job
ADVICE = {
    "TIMEOUT": "; raise stages.{}.time in cluster.yaml",
    "OUT_OF_MEMORY": "; raise stages.{}.memory_gb in cluster.yaml",
}

Known = dict[str, slurm.Job | None]


def make_as_jobs(stage: str, work: Path, shards: list[str], items: int, unit: str, cluster: Cluster) -> None:
    """Make the shards that are missing in `work`. Waits for a controller that does not answer.

    Raises FilmstillError with the reason of a shard that could not be made or was cancelled, Interrupted when told to
    stop: then its jobs go on, as a killed process's do.
    """
    root = Path.cwd()
    name = _name(stage, work)
    tries: Counter[str] = Counter()
    jobs: dict[str, str] = {}  # by shard, the last
    known: Known = {}  # jobs by id, other processes' too, as last seen
    refusal, parent = "", dvc_parent()
    try:
        with progress(stage, items, unit=unit) as bar:
            while True:
                try:
                    _wait(bar, stage, name, work, cluster, known, parent)
                    jobs = last_jobs(work, shards, known.keys() - jobs.values()) | jobs  # other processes' too
                    todo = _missing(work, shards)
                    if not todo:
                        return
                    _refuse_cancelled(stage, known)
                    for shard in todo:
                        job = jobs.get(shard)
                        _refuse_to_repeat(stage, work, shard, job, _end(job, known), tries[shard], refusal)
                    preflight(stage, cluster, root)
                except slurm.Unreachable as error:
                    bar.set_postfix(refresh=False, jobs=f"SLURM does not answer: {error}")
                    time.sleep(cluster.poll_seconds)
                    continue
                submitted, refusal = submit_shards(name, work, todo, cluster.asked(stage), cluster.poll_seconds)
                tries.update(submitted.keys() or todo)  # what a limit of the queue refused has its try later
                jobs |= submitted
                known |= dict.fromkeys(submitted.values())
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"{stage}: stopped; its jobs go on, `dvc repro` takes them up, `python -m filmstill cancel {stage}` "
            "cancels them",
            error.signal if isinstance(error, Interrupted) else signal.SIGINT,
        ) from None


def refuse_beside_jobs(stage: str, work: Path) -> None:
    """Stop where jobs are at work in the folder, whose shards this machine would make a second time."""
    try:
        slurm.refuse_missing()
        alive = _alive(_name(stage, work), {})
    except slurm.Unreachable as error:
        raise FilmstillError(
            f"{stage}: jobs may be at work in {work}, and SLURM does not answer ({error}); try again, or remove "
            f"{logs(work)} where none is"
        ) from None
    if alive:
        raise FilmstillError(
            f"{stage}: {len(alive)} jobs are at work in {work}; `python -m filmstill cancel {stage}` ends them, or "
            "executor: slurm in cluster.yaml waits for them"
        )


def _name(stage: str, work: Path) -> str:
    """What the names of the shards' jobs begin with: Snakemake refuses a dot, and adds _<a number>."""
    return slurm.job_name(stage, work.name, Path.cwd()).replace(".", "-")


def _wait(
    bar: Any, stage: str, name: str, work: Path, cluster: Cluster, known: Known, parent: psutil.Process | None
) -> None:
    """Return when no job of that name is alive; the bar shows what they report, and who failed is told at once.

    Raises Interrupted when `parent`, the dvc that runs this stage, has gone.
    """
    while True:
        if has_exited(parent):
            raise Interrupted("dvc has gone", signal.SIGTERM)
        before = _failed(known)
        alive = _alive(name, known)
        for number in sorted(_failed(known) - before):
            log = log_of_job(work.resolve(), number)
            tqdm.write(f"{stage}: job {number} failed; the others go on; its log: {log}", sys.stderr)
        for job in alive:
            if job.restarts > cluster.max_requeues:  # it may be what its nodes die of
                slurm.cancel(job.id)
                raise FilmstillError(
                    f"{stage}: job {job.id} lost its node more often than max_requeues of cluster.yaml allows, and is "
                    f"cancelled; the others go on; its log: {log_of_job(work.resolve(), job.id)}"
                )
        bar.set_postfix(refresh=False, jobs=_states(alive))
        bar.update(done(work) - bar.n)
        if not alive:
            return
        time.sleep(cluster.poll_seconds)


def _failed(known: Known) -> set[str]:
    return {number for number, job in known.items() if job is not None and job.state in FAILED}


def _refuse_cancelled(stage: str, known: Known) -> None:
    """Whoever cancels a job does not want the next: stop, also where another process submitted it."""
    cancelled = [number for number, job in known.items() if job is not None and job.state == "CANCELLED"]
    if cancelled:
        raise FilmstillError(
            f"{stage}: {len(cancelled)} of its jobs were cancelled ({cancelled[0]} first); finished shards are kept, "
            "`dvc repro` makes the rest"
        )


def _refuse_to_repeat(
    stage: str, work: Path, shard: str, job: str | None, end: slurm.Job | None, tries: int, refusal: str
) -> None:
    """Stop at a shard whose next job would end as the last one did, or that has had its tries."""
    if job is None:
        if tries < TRIES:
            return
        why = refusal
    else:
        if tries < TRIES and (end is None or end.state in LOST):
            return
        why = _why(stage, work, shard, job, end)
    raise FilmstillError(f"{stage}: shard {shard} failed: {why}; finished shards are kept")


def _end(job: str | None, known: Known) -> slurm.Job | None:
    """How a job that is over ended: as seen, or by accounting where SLURM forgot it unseen; None: nobody knows."""
    seen = known.get(job) if job else None
    return seen if job is None or (seen is not None and not seen.alive) else slurm.find(job)


def _alive(name: str, known: Known) -> list[slurm.Job]:
    """The jobs of that name that wait or run; `known` keeps how the others ended, which SLURM forgets in minutes."""
    jobs = [job for job in slurm.queued() if job.name.startswith(f"{name}_")]
    known |= {job.id: job for job in jobs if job.alive or job.id in known}
    return [job for job in jobs if job.alive]


def _states(jobs: list[slurm.Job]) -> str:
    """Such as `2 running, 3 pending (Priority)`; `none`."""
    counts = Counter(_state(job) for job in jobs)
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"


def _state(job: slurm.Job) -> str:
    if job.is_held:
        return f"held ({job.reason}: `scontrol release {job.id}`)"
    return f"{job.state.lower()} ({job.waits_for})" if job.state == "PENDING" else job.state.lower()


def _missing(work: Path, shards: list[str]) -> list[str]:
    """By a listing: opening the folder makes NFS look for what other machines wrote; asking for a file does not."""
    there = {path.stem for path in (work / "shards").glob("*.safetensors")}
    return [shard for shard in shards if shard not in there]


def _why(stage: str, work: Path, shard: str, job: str, ended: slurm.Job | None) -> str:
    """SLURM's reason if it ended the job, else the last line of the shard's log, or SLURM's error if that is empty."""
    log = log_of(work, shard)
    if ended is not None and ended.state == "COMPLETED":
        return f"job {job} ended well, but its shard is not to be seen here: do the nodes see this folder?"
    if ended is not None and ended.state != "FAILED":
        return f"SLURM ended job {job}: {ended.state}{ADVICE.get(ended.state, '').format(stage)} (log: {log})"
    if not log.is_file() or not log.stat().st_size:  # its process was not reached
        log = log_of_job(work.resolve(), job)
        errors = STEP_ERROR.findall(log.read_text(errors="replace")) if log.is_file() else []
        return f"{errors[0] if errors else f'job {job} said nothing'} (log: {log})"
    return f"{last_line(log)} (log: {log})"
