"""`python -m filmstill jobs` and `cancel`: this repository's jobs, in SLURM's queue and on record."""

from dataclasses import dataclass
from pathlib import Path

from filmstill.cluster import slurm
from filmstill.cluster.config import STAGES, cluster_name, read_cluster
from filmstill.cluster.follow import describe
from filmstill.cluster.job import end_record
from filmstill.cluster.records import read_progress
from filmstill.cluster.scratch import find_work, use_work
from filmstill.cluster.submit import CANCELLED, RECORD, Submission, latest_folder, mark_cancelled, next_run, recorded
from filmstill.cluster.submit_shards import job_logs, logs_by_job
from filmstill.errors import FilmstillError
from filmstill.work import graph
from filmstill.work.folder import WORK


@dataclass(frozen=True)
class Row:
    """A row of the table: a job in SLURM's queue or on record, or all finished jobs of a work folder's shards."""

    stage: str
    id: str  # or the number of jobs
    state: str
    requeues: str
    progress: str  # such as 12/30 step
    log: str  # path of its log


def show_jobs() -> None:
    """Print a table of live jobs and of all jobs that were submitted from the work folders.

    Raises FilmstillError where cluster.yaml is wrong.
    """
    from rich.console import Console

    from filmstill.runtime.text_table import TextTable

    root = graph.repository()
    use_work(read_cluster(), root)
    try:
        live, note = slurm.live_jobs(root), ""
    except slurm.Unreachable as error:
        live, note = [], f"SLURM's controller does not answer ({error}); jobs on record:"
    except FilmstillError as error:
        live, note = [], f"{error}; jobs on record:"
    ids = {job.id for job in live}
    shard_logs = {work: logs_by_job(work) for work in sorted(WORK.glob("*/*")) if job_logs(work).exists()}
    rows = [_live(job, shard_logs) for job in live] + _past(ids) + _past_shards(ids, shard_logs)
    if note:
        print(note)
    if not rows:
        print(f"no job of this repository; `dvc repro` submits jobs where {cluster_name()} has executor: slurm")
        return
    table = TextTable("", ["stage", "job", "state", "requeued", "progress"], left=("job", "state", "progress"))
    for row in rows:
        table.add(row.stage, row.id, row.state, row.requeues, row.progress)
    Console().print(table)
    for row in filter(lambda row: row.log, rows):
        print(f"log of {row.id}: {row.log}")


def cancel_jobs(stage: str | None) -> None:
    """Cancel this repository's live jobs of one stage, or of all (None).

    Raises FilmstillError where SLURM refuses or does not answer, or `stage` does not run as a job.
    """
    if stage is not None and stage not in STAGES:
        raise FilmstillError(f"cancel: stage: is {stage!r}, allowed: {', '.join(STAGES)} (the stages that run as jobs)")
    root = graph.repository()
    find_work(root)
    try:
        jobs = [job for job in slurm.live_jobs(root) if stage in (None, _stage_and_key(job)[0])]
        if jobs:
            slurm.cancel(*(job.id for job in jobs))
    except slurm.Unreachable as error:
        raise FilmstillError(f"cancel: SLURM's controller does not answer ({error}); try again when it does") from None
    works: dict[Path, list[str]] = {}
    for job in jobs:
        works.setdefault(WORK.joinpath(*_stage_and_key(job)), []).append(job.id)
    for work, ids in works.items():
        if folder := latest_folder(work):
            mark_cancelled(folder)
        then = f"; `dvc repro` {next_run(work)}" if work.parent.name in STAGES else ""  # not for `cluster check`
        print(f"cancelled {_counted(ids)} of {work.parent.name} in {work}{then}")
    if not jobs:
        print(f"no job of {stage or 'this repository'} is pending or running")


def live_keys() -> set[tuple[str, str]]:
    """(stage, key) of this repository's live jobs, whose folders may not be locked by any process on this machine.

    Raises FilmstillError where SLURM's controller does not answer.
    """
    find_work(graph.repository())
    if not (any(WORK.glob("*/*/jobs")) or any(WORK.glob("*/*/logs/slurm"))) or not slurm.available():
        return set()  # no job was ever submitted
    try:
        names = [slurm.parse_name(job.name) for job in slurm.live_jobs(Path.cwd())]
    except slurm.Unreachable as error:
        raise FilmstillError(
            f"SLURM's controller does not answer ({error}): jobs may be at work; nothing is pruned"
        ) from None
    return {(stage, key) for stage, key, _tag in filter(None, names)}


def _counted(ids: list[str]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs ({', '.join(ids)})"


def _stage_and_key(job: slurm.QueuedJob) -> tuple[str, str]:
    return slurm.parse_name(job.name)[:2]  # type: ignore[index]


def _live(job: slurm.QueuedJob, shard_logs: dict[Path, dict[str, Path]]) -> Row:
    """Row of a live job. shard_logs: by work folder, the logs of its shards' jobs by id."""
    stage, key = _stage_and_key(job)
    work = WORK / stage / key
    folder = latest_folder(work)
    log = Submission(job.name, job.id, str(folder)).log("err") if folder else shard_logs.get(work, {}).get(job.id, "")
    return Row(stage, job.id, "".join(describe(job)), str(job.restarts), _progress(folder), str(log))


def _past(live: set[str]) -> list[Row]:
    """Rows of every recorded submission that is not live, by work folder, the latest record last."""
    records = sorted(WORK.glob(f"*/*/{RECORD}"), key=lambda path: path.stat().st_mtime)
    submissions = [submission for path in records for submission in recorded(path.parent)]
    return [_ended(submission) for submission in submissions if submission.id not in live]


def _past_shards(live: set[str], shard_logs: dict[Path, dict[str, Path]]) -> list[Row]:
    """One row per work folder for the finished jobs of its shards: number of jobs and shards, folder of their logs."""
    rows = []
    for work, log_of in shard_logs.items():
        over = log_of.keys() - live
        made = len(list((work / "shards").glob("*.safetensors")))
        if over:
            jobs = f"{len(over)} jobs"
            rows.append(Row(work.parent.name, jobs, f"over, {made} shards made", "", "", str(job_logs(work))))
    return rows


def _ended(submission: Submission) -> Row:
    folder = Path(submission.folder)
    end = end_record(folder)
    without_record = "cancelled" if (folder / CANCELLED).exists() else "lost, not finished"
    how = f"{end['outcome']} {end['message']}".strip() if end else without_record
    return Row(folder.parts[-4], submission.id, how, "", _progress(folder), str(submission.log("err")))


def _progress(folder: Path | None) -> str:
    """Progress that a submission's job has reported, such as `12/30 step`; empty where it has not."""
    report = read_progress(folder) if folder else None
    return f"{report.n:g}/{report.total:g} {report.unit}" if report else ""
