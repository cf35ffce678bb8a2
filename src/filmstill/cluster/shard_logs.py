"""Where SLURM writes what the jobs of a stage's shards print: <work>/logs/slurm/<rule>/<wildcard>/<job>.log."""

from pathlib import Path


def logs(work: Path) -> Path:
    """The folder of a work folder's jobs."""
    return work / "logs" / "slurm"


def log_of_job(work: Path, job: str) -> Path:
    """The log of one job; the folder where there is none yet."""
    return next(logs(work).glob(f"*/*/{job}.log"), logs(work))
