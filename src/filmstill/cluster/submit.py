"""Submit a stage as a job of SLURM's, and find it again.

Notable: every submission has a folder of its own, since job ids start anew on a new cluster; a job that is alive is
found by its name in the queue, never by an id on record, so that it is found even when the process that submitted it
was killed before it could write down anything.
"""

import json
import os
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filmstill.cluster import slurm
from filmstill.cluster.config import Cluster, Resources
from filmstill.cluster.job import Job
from filmstill.cluster.preflight import sbatch_flags
from filmstill.errors import FilmstillError, Interrupted, writing_failed
from filmstill.runtime.files import write_json
from filmstill.work.stage import Stage

JOBS, RECORD = "jobs", "job.json"  # in the work folder: what submissions write, and which there were
CANCELLED = "cancelled"  # in a submission's folder, once somebody has seen it
ENDLESS = 10**6  # submitit's own limit of time-outs; max_requeues of cluster.yaml counts what is no time-out


@dataclass(frozen=True)
class Submission:
    """A job of a stage."""

    name: str
    id: str
    folder: str  # .work/<stage>/<key>/jobs/<number>, from the repository's root

    def log(self, stream: str, rank: int = 0) -> Path:
        """What a process prints to `stream`, out or err; SLURM appends to it when it starts the job again."""
        return Path(self.folder) / f"{self.id}_{rank}_log.{stream}"


def latest(work: Path) -> Path | None:
    """The folder of the latest submission from a work folder."""
    return max((work / JOBS).glob("*"), default=None)


def recorded(work: Path) -> list[Submission]:
    """Every submission from a work folder that is on record, the latest last."""
    with suppress(OSError, ValueError, TypeError):  # lost or damaged: a job that is alive is found by its name
        return [Submission(**facts) for facts in json.loads((work / RECORD).read_text())]
    return []


def note_cancelled(folder: Path) -> None:
    """Put on record that the job of a submission's folder was cancelled, which SLURM forgets in minutes."""
    with suppress(OSError):  # a full disk: then it is gone, and nobody knows why
        (folder / CANCELLED).touch()


def next_run(work: Path) -> str:
    """What the next `dvc repro` does with a work folder whose job is gone, or about to go: it may still save."""
    if any((work / "checkpoints").glob("step-*")):
        return "goes on from the last checkpoint"
    if any((work / "shards").glob("*.safetensors")):
        return "keeps the shards that are made, and makes the rest"
    return "begins anew: nothing is saved yet"


def alive(stage: Stage, root: Path) -> Submission | None:
    """The stage's job that runs or waits. Raises slurm.Unreachable."""
    name = slurm.job_name(stage.name, stage.work.name, root)
    ids = [job.id for job in slurm.queued(name) if job.alive and Path(job.folder).resolve() == root.resolve()]
    folder = latest(stage.work)
    if not ids:
        return None
    if folder is None:
        raise FilmstillError(
            f"{stage.name}: job {ids[0]} is at work in a folder that was removed; first `python -m filmstill cancel "
            f"{stage.name}`"
        )
    for pickle in folder.glob("*.pkl"):  # submitit renames it after sbatch, if it lives so long
        if "_" not in pickle.stem:
            pickle.rename(folder / f"{ids[0]}_submitted.pkl")
    return _recorded(stage.work, Submission(name, ids[0], str(folder)))


def submit(stage: Stage, cluster: Cluster, root: Path, restarts: int) -> Submission:
    """Put the stage into SLURM's queue. restarts: how often SLURM may start it again after a loss.

    Raises FilmstillError with sbatch's own reason.
    """
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError, environment_variables
    from submitit.helpers import clean_env

    asked, folder = cluster.asked(stage.name), _new_folder(stage.work)
    name = slurm.job_name(stage.name, stage.work.name, root)
    executor = AutoExecutor(root / folder, cluster="slurm", slurm_max_num_timeout=ENDLESS, slurm_python=_python(asked))
    executor.update_parameters(
        slurm_setup=[f"export PYTHONPATH={shlex.quote(str(root / 'src'))}", *asked.setup],
        # srun has not taken cpus-per-task over from sbatch since 22.05; a site's WaitTime would end the last process.
        slurm_srun_args=["--kill-on-bad-exit=1", "--wait=0", f"--cpus-per-task={asked.cpus_per_task}"],
        slurm_additional_parameters={**sbatch_flags(asked, name), "chdir": str(root)},
    )
    job = Job(root, stage.name, folder, restarts, asked.sharding, asked.offload)
    kept = {key: value for key, value in os.environ.items() if key == "SLURM_CONF"}
    try:
        with clean_env(), environment_variables(**kept):  # as if from outside, when this is a job of SLURM's itself
            submitted = executor.submit(job)
    except (FailedJobError, FailedSubmissionError) as error:
        if isinstance(error.__cause__, Interrupted):
            raise error.__cause__ from None
        if slurm.NO_ANSWER.search(str(error)):  # SLURM may have taken it: then it is found by its name
            raise slurm.Unreachable(" ".join(str(error).split())[:200]) from None
        shutil.rmtree(folder, ignore_errors=True)
        raise FilmstillError(f"{stage.name}: sbatch refuses the job: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise writing_failed(root / folder, error) from error
    return _recorded(stage.work, Submission(name, submitted.job_id, str(folder)))


def _python(asked: Resources) -> str:
    """What starts a process, to which SLURM's warning is no death before it can answer: while it is imported."""
    return f'bash -c \'trap "" USR2; exec "$@"\' -- {asked.python or shlex.quote(sys.executable)}'


def _new_folder(work: Path) -> Path:
    before = latest(work)
    folder = work / JOBS / f"{int(before.name) + 1 if before else 1:04d}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
    return folder


def _recorded(work: Path, submission: Submission) -> Submission:
    others = [other for other in recorded(work) if other.folder != submission.folder]
    write_json(work / RECORD, [asdict(each) for each in (*others, submission)])
    return submission
