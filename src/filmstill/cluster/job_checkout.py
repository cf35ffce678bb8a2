"""The checkout whose sources a job runs. DVC removes an experiment's folder when its stage has ended.

The jobs that run from that folder must be cancelled then; a job of the same work that another checkout has submitted
goes on.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filmstill.cluster import slurm
from filmstill.errors import FilmstillError
from filmstill.work.checkouts import EXPERIMENTS, experiment_of

CHECKOUT = "checkout"  # file in a work folder: the checkout whose sources the latest jobs of its shards run
RESUMED = (
    "because DVC removes the experiment's folder; what is saved is kept, and an experiment with the same parameters "
    "resumes it"
)


def checkout_of(job: slurm.QueuedJob, work: Path) -> Path | None:
    """The checkout whose sources a job of the work folder runs; None where a damaged file does not name it.

    It is the working directory of a training's job; that of a shard's is the work folder.
    """
    if not job.is_shard:
        return Path(job.folder)
    with suppress(OSError, ValueError):
        path = Path((work / CHECKOUT).read_text(encoding="utf-8"))
        return path if path.is_absolute() else None
    return None


def has_lost_experiment(job: slurm.QueuedJob, work: Path) -> bool:
    """Whether a job runs from an experiment's folder that DVC has removed."""
    checkout = checkout_of(job, work)
    return checkout is not None and str(EXPERIMENTS) in str(checkout) and not os.path.isdir(checkout)


def cancel_with_experiment(
    stage: str, work: Path, subject: str, jobs: Callable[[], list[slurm.QueuedJob]]
) -> str | None:
    """Cancel the live jobs that run from the experiment's folder in which this process runs.

    jobs: lists the stage's jobs. subject: the jobs and a verb, such as "job 41 is". Returns what happened to them, in
    words; None: they go on, because DVC runs no experiment here or because another checkout has submitted them.
    """
    if not experiment_of(Path.cwd()):
        return None
    try:
        ours = [job.id for job in jobs() if job.alive and checkout_of(job, work) == Path.cwd()]
        if ours:
            slurm.cancel(*ours)
    except (FilmstillError, slurm.Unreachable) as error:
        return (
            f"{subject} perhaps not cancelled ({error}), and cannot go on, because DVC removes the experiment's "
            f"folder; run `python -m filmstill cancel {stage}`"
        )
    return f"{subject} cancelled, {RESUMED}" if ours else None
