"""`python -m filmstill jobs` and `cancel`: this repository's jobs, in SLURM's queue and on record."""

import json
from dataclasses import dataclass
from pathlib import Path

from filmstill.cluster import slurm
from filmstill.cluster.config import STAGES
from filmstill.cluster.follow import state
from filmstill.cluster.job import ended
from filmstill.cluster.shard_logs import by_job, logs
from filmstill.cluster.submit import CANCELLED, RECORD, Submission, latest, next_run, note_cancelled, recorded
from filmstill.errors import FilmstillError
from filmstill.runtime.job_folder import REPORT
from filmstill.work import graph
from filmstill.work.folder import WORK


@dataclass(frozen=True)
class Row:
    """A job as its queue or its record in the work folder shows it."""

    stage: str
    id: str  # or how many
    state: str
    requeues: str
    progress: str  # 12/30 step
    log: str  # in the work folder, which names stage and key


def show_jobs() -> None:
    """Print the table of live jobs, and of all that were ever submitted from the work folders."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    root = graph.repository()
    try:
        live, note = slurm.alive_of(root), ""
    except slurm.Unreachable as error:
        live, note = [], f"SLURM's controller does not answer ({error}); jobs on record:"
    except FilmstillError as error:
        live, note = [], f"{error}; jobs on record:"
    ids = {job.id for job in live}
    shards = {work: by_job(work) for work in sorted(WORK.glob("*/*")) if logs(work).exists()}
    known = [_live(job, shards) for job in live] + _past(ids) + _past_shards(ids, shards)
    console = Console()
    if note:
        console.print(note)
    if not known:
        console.print("no job of this repository: cluster.yaml says whether `dvc repro` submits any")
        return
    table = Table("stage", "job", "state", "requeued", "progress", box=SIMPLE_HEAD)
    for column in table.columns:  # on a narrow terminal a long state goes on below
        column.no_wrap = column.header != "state"
    for job in known:
        table.add_row(job.stage, job.id, job.state, job.requeues, job.progress)
    console.print(table)
    for job in filter(lambda job: job.log, known):
        console.print(f"log of {job.id}: {job.log}", soft_wrap=True)


def cancel_jobs(stage: str | None) -> None:
    """Cancel this repository's live jobs, of one stage or of all. Raises FilmstillError when SLURM refuses."""
    if stage is not None and stage not in STAGES:
        raise FilmstillError(f"cancel: {stage!r} is no stage that runs as a job; allowed: {', '.join(STAGES)}")
    root = graph.repository()
    try:
        jobs = [job for job in slurm.alive_of(root) if stage in (None, _stage_and_key(job)[0])]
        if jobs:
            slurm.cancel(*(job.id for job in jobs))
    except slurm.Unreachable as error:
        raise FilmstillError(f"cancel: SLURM's controller does not answer ({error}); try again when it does") from None
    works: dict[Path, list[str]] = {}
    for job in jobs:
        works.setdefault(WORK.joinpath(*_stage_and_key(job)), []).append(job.id)
    for work, ids in works.items():
        if folder := latest(work):
            note_cancelled(folder)
        then = f"; `dvc repro` {next_run(work)}" if work.parent.name in STAGES else ""  # not of `cluster check`
        print(f"cancelled {_counted(ids)} of {work.parent.name} in {work}{then}")
    if not jobs:
        print(f"no job of {stage or 'this repository'} waits or runs")


def live_keys() -> set[tuple[str, str]]:
    """(stage, key) of this repository's live jobs, which no process here need wait for."""
    if not (any(WORK.glob("*/*/jobs")) or any(WORK.glob("*/*/logs/slurm"))) or not slurm.available():
        return set()  # there never was one
    try:
        names = [slurm.parse_name(job.name) for job in slurm.alive_of(Path.cwd())]
    except slurm.Unreachable as error:
        raise FilmstillError(
            f"SLURM's controller does not answer ({error}): jobs may be at work; nothing is pruned"
        ) from None
    return {(stage, key) for stage, key, _tag in filter(None, names)}


def _counted(ids: list[str]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs ({', '.join(ids)})"


def _stage_and_key(job: slurm.Job) -> tuple[str, str]:
    return slurm.parse_name(job.name)[:2]  # type: ignore[index]


def _live(job: slurm.Job, shards: dict[Path, dict[str, Path]]) -> Row:
    stage, key = _stage_and_key(job)
    work = WORK / stage / key
    folder = latest(work)
    log = Submission(job.name, job.id, str(folder)).log("err") if folder else shards.get(work, {}).get(job.id, "")
    return Row(stage, job.id, "".join(state(job)), str(job.restarts), _progress(folder), str(log))


def _past(live: set[str]) -> list[Row]:
    """Every submission on record but those that are alive, by work folder, the one submitted to last at the end."""
    records = sorted(WORK.glob(f"*/*/{RECORD}"), key=lambda path: path.stat().st_mtime)
    submissions = [submission for path in records for submission in recorded(path.parent)]
    return [_ended(submission) for submission in submissions if submission.id not in live]


def _past_shards(live: set[str], shards: dict[Path, dict[str, Path]]) -> list[Row]:
    """The jobs of every work folder's shards that are over, in one line: what they made and where their logs are.

    shards: by work folder, the logs of its jobs.
    """
    known = []
    for work, log_of in shards.items():
        over = log_of.keys() - live
        made = len(list((work / "shards").glob("*.safetensors")))
        if over:
            jobs = f"{len(over)} jobs"
            known.append(Row(work.parent.name, jobs, f"over, {made} shards made", "", "", str(logs(work))))
    return known


def _ended(submission: Submission) -> Row:
    folder = Path(submission.folder)
    end = ended(folder)
    gone = "cancelled" if (folder / CANCELLED).exists() else "gone, not finished"
    how = f"{end['outcome']} {end['message']}".strip() if end else gone
    return Row(folder.parts[-4], submission.id, how, "", _progress(folder), str(submission.log("err")))


def _progress(folder: Path | None) -> str:
    """How far a submission's job has reported to be."""
    if folder is None or not (folder / REPORT).exists():
        return ""
    report = json.loads((folder / REPORT).read_text())
    return f"{report['n']:g}/{report['total']:g} {report['unit']}"
