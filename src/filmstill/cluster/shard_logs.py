"""Where SLURM writes what the jobs of a stage's shards print: <work>/logs/slurm/<rule>/<wildcard>/<job>.log."""

from collections.abc import Iterable
from pathlib import Path


def logs(work: Path) -> Path:
    """The folder of a work folder's jobs."""
    return work / "logs" / "slurm"


def by_job(work: Path) -> dict[str, Path]:
    """Every log, by its job's id: of the jobs that have begun to print."""
    return {log.stem: log for log in logs(work).glob("*/*/*.log")}


def log_of_job(work: Path, job: str) -> Path:
    """The log of one job; the folder where there is none yet."""
    return by_job(work).get(job, logs(work))


def last_jobs(work: Path, shards: list[str], jobs: Iterable[str]) -> dict[str, str]:
    """The last of these jobs for each shard, of those that have begun to print."""
    shard_of, log_of = by_wildcard(shards), by_job(work)
    ours = [job for job in jobs if job in log_of and log_of[job].parent.name in shard_of]
    return {shard_of[log_of[job].parent.name]: job for job in sorted(ours, key=int)}


def by_wildcard(shards: list[str]) -> dict[str, str]:
    """Shards by what Snakemake's rules call them: pairs-0003 is 0003."""
    return {shard.partition("-")[2]: shard for shard in shards}
