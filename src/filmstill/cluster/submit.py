"""Submit a stage as a SLURM job, and find it again.

Every submission has its own folder, because job ids start from 1 again on a new cluster. A live job is found by its
name in the queue, never by an id on record, so it is found even if the process that submitted it was killed before it
wrote the record.
"""

import logging
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filmstill.cluster import slurm
from filmstill.cluster.config import Cluster, Resources
from filmstill.cluster.job import Job
from filmstill.cluster.job_checkout import has_lost_experiment
from filmstill.cluster.preflight import sbatch_flags
from filmstill.cluster.records import read_record
from filmstill.errors import FilmstillError, Interrupted, writing_failed
from filmstill.runtime.files import write_json
from filmstill.work.stage import Stage, dvc_parent, has_exited

log = logging.getLogger(__name__)

JOBS, RECORD = "jobs", "job.json"  # in the work folder: the submissions' folders, and the list of submissions
CANCELLED = "cancelled"  # file in a submission's folder: its job was seen to be cancelled
ENDING_SECONDS = 1.0  # between two looks at a job that is ending
NO_LIMIT = 10**6  # for submitit's limit of time-outs: max_requeues of cluster.yaml counts only losses


@dataclass(frozen=True)
class Submission:
    """A submitted job of a stage."""

    name: str
    id: str
    folder: str  # .work/<stage>/<key>/jobs/<number>, relative to the repository's root

    def log(self, stream: str, rank: int = 0) -> Path:
        """Path of a rank's log. stream: out or err. SLURM appends to it when it restarts the job."""
        return Path(self.folder) / f"{self.id}_{rank}_log.{stream}"

    @property
    def pickle(self) -> Path:
        """The file from which every start of the job learns what to run."""
        return Path(self.folder) / f"{self.id}_submitted.pkl"


def latest_folder(work: Path) -> Path | None:
    """The folder of the latest submission from a work folder. Folders whose name is no number are ignored."""
    return max((folder for folder in (work / JOBS).glob("*") if folder.name.isdecimal()), default=None)


def recorded(work: Path) -> list[Submission]:
    """Every recorded submission from a work folder, the latest last; [] without a readable record."""
    records = read_record(work / RECORD)  # lost or damaged: live jobs are found by name
    return [found for record in records if (found := _submission(record, work))] if isinstance(records, list) else []


def _submission(record: Any, work: Path) -> Submission | None:
    """A submission on record; None where the record is not one of this work folder."""
    match record:
        case {"name": str(name), "id": str(number), "folder": str(folder)}:
            if number.isdecimal() and Path(folder).parent == work / JOBS and Path(folder).name.isdecimal():
                return Submission(name, number, folder)
    return None


def mark_cancelled(folder: Path) -> None:
    """Record that the job of a submission's folder was cancelled, because SLURM forgets it within minutes."""
    with suppress(OSError):  # on a full disk `filmstill jobs` shows the job without the reason
        (folder / CANCELLED).touch()


def next_run(work: Path) -> str:
    """What the next `dvc repro` will do in a work folder whose job has ended or is ending."""
    if any((work / "checkpoints").glob("step-*")):
        return "resumes from the last checkpoint"
    if any((work / "shards").glob("*.safetensors")):
        return "keeps the finished shards and makes the rest"
    return "starts from the beginning: nothing is saved yet"


def live_job(stage: Stage, root: Path) -> Submission | None:
    """The stage's job that is running or pending. Waits for a job that is ending: it is over or pending afterwards.

    Raises slurm.Unreachable, FilmstillError if the job's folder is gone, Interrupted if the parent dvc process exited
    during the wait.
    """
    name, parent = slurm.job_name(stage.name, stage.work.name, root), dvc_parent()
    warned = False
    while True:
        job = next((job for job in slurm.queued(name) if job.alive and slurm.works_in(job, root)), None)
        if job is None:
            return None
        if job.state != "COMPLETING":
            if not has_lost_experiment(job, stage.work):
                return _adopt(stage, job)
            log.warning("%s: job %s is cancelled: DVC has removed its experiment, %s", stage.name, job.id, job.folder)
            slurm.cancel(job.id)
        if not warned:
            log.info("%s: job %s is ending; waiting for its end", stage.name, job.id)
        warned = True
        if has_exited(parent):
            raise Interrupted(f"{stage.name}: the parent dvc process exited; no job was submitted", signal.SIGTERM)
        time.sleep(ENDING_SECONDS)


def _adopt(stage: Stage, job: slurm.QueuedJob) -> Submission:
    """The record of a live job, which the process that submitted it may not have written."""
    folder = latest_folder(stage.work)
    if folder is None:
        raise FilmstillError(
            f"{stage.name}: job {job.id} is at work in a folder that was removed; run `python -m filmstill cancel "
            f"{stage.name}` first"
        )
    submission = Submission(job.name, job.id, str(folder))
    for pickle in folder.glob("*.pkl"):  # submitit renames it after sbatch, unless it is killed before
        if "_" not in pickle.stem:
            pickle.rename(submission.pickle)
    return _record(stage.work, submission)


def submit(stage: Stage, cluster: Cluster, root: Path, max_restarts: int) -> Submission:
    """Submit the stage to SLURM. max_restarts: how often SLURM may restart it after a loss.

    Raises FilmstillError with sbatch's reason, slurm.Unreachable where the controller does not answer.
    """
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError, environment_variables
    from submitit.helpers import clean_env

    resources, folder = cluster.resources(stage.name), _new_folder(stage.work)
    name, python = slurm.job_name(stage.name, stage.work.name, root), _python(resources)
    executor = AutoExecutor(root / folder, cluster="slurm", slurm_max_num_timeout=NO_LIMIT, slurm_python=python)
    executor.update_parameters(
        slurm_setup=[f"export PYTHONPATH={shlex.quote(str(root / 'src'))}", *resources.setup],
        # Since 22.05 srun does not take cpus-per-task from sbatch. --wait=0: a site's WaitTime would kill slow ranks.
        slurm_srun_args=["--kill-on-bad-exit=1", "--wait=0", f"--cpus-per-task={resources.cpus_per_task}"],
        slurm_additional_parameters={**sbatch_flags(resources, name), "chdir": str(root)},
    )
    job = Job(root, stage.name, folder, stage.params, max_restarts, resources.sharding, resources.offload)
    kept = {key: value for key, value in os.environ.items() if key == "SLURM_CONF"}
    try:
        with clean_env(), environment_variables(**kept):  # without variables of a SLURM job that runs this process
            submitted = executor.submit(job)
    except (FailedJobError, FailedSubmissionError) as error:
        if isinstance(error.__cause__, Interrupted):
            raise error.__cause__ from None
        if slurm.NO_ANSWER.search(str(error)):  # SLURM may have accepted the job: then it is found by its name
            raise slurm.Unreachable(" ".join(str(error).split())[:200]) from None
        shutil.rmtree(folder, ignore_errors=True)
        raise FilmstillError(f"{stage.name}: sbatch refuses the job: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise writing_failed(root / folder, error) from error
    return _record(stage.work, Submission(name, submitted.job_id, str(folder)))


def _python(resources: Resources) -> str:
    """Launcher that ignores SIGUSR2 until Python has installed its handler."""
    return f'bash -c \'trap "" USR2; exec "$@"\' -- {resources.python or shlex.quote(sys.executable)}'


def _new_folder(work: Path) -> Path:
    before = latest_folder(work)
    folder = work / JOBS / f"{int(before.name) + 1 if before else 1:04d}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
    return folder


def _record(work: Path, submission: Submission) -> Submission:
    others = [other for other in recorded(work) if other.folder != submission.folder]
    try:
        write_json(work / RECORD, [asdict(each) for each in (*others, submission)])
    except FilmstillError as error:  # the job is submitted, and is found by its name
        log.warning("%s; job %s goes on, but `filmstill jobs` will not list it once it has ended", error, submission.id)
    return submission
