"""Where SLURM writes what the jobs of a stage's shards print: <work>/logs/slurm/<rule>/<wildcard>/<job>.log."""

from collections.abc import Iterable
from pathlib import Path


def logs(work: Path) -> Path:
    """The folder of a work folder's jobs."""
    return work / "logs" / "slurm"


def log_of_job(work: Path, job: str) -> Path:
    """The log of one job; the folder where there is none yet."""
    return next(logs(work).glob(f"*/*/{job}.log"), logs(work))


def last_jobs(work: Path, shards: list[str], jobs: Iterable[str]) -> dict[str, str]:
    """The last of these jobs for each shard, of those that have begun to print."""
    shard_of, wanted = by_wildcard(shards), set(jobs)
    found = sorted(
        (int(log.stem), shard_of[log.parent.name])
        for log in logs(work).glob("*/*/*.log")
        if log.stem in wanted and log.parent.name in shard_of
    )
    return {shard: str(job) for job, shard in found}


def by_wildcard(shards: list[str]) -> dict[str, str]:
    """Shards by what Snakemake's rules call them: pairs-0003 is 0003."""
    return {shard.partition("-")[2]: shard for shard in shards}
