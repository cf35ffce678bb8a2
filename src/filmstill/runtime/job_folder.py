"""Files through which a SLURM job and the process that waits for it communicate.

Each submission has its own numbered folder, .work/<stage>/<key>/jobs/<number>.
"""

import os
from contextlib import suppress
from pathlib import Path

JOB = "FILMSTILL_JOB"  # environment variable of a job's processes: the path of its folder
REPORT = "progress.json"
START = "start"  # file with the number of the current start, as SLURM counts them: 0 for the first
CLEAN_EXIT = "clean-exit-"  # + the number of a start: it saved a checkpoint when signalled, so its end is no loss


def restart_count() -> int:
    """How often SLURM has restarted this job: 0 in the first start."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def is_superseded() -> bool:
    """Whether a later start of this job, or a later job, has replaced these processes.

    SLURM restarts a job when it loses contact with a node, whose processes may still be running. False outside a job.
    """
    if JOB not in os.environ:
        return False
    folder = Path(os.environ[JOB])
    with suppress(OSError, ValueError):  # the file system did not answer, or the file is being written
        if any(other.name > folder.name for other in folder.parent.iterdir() if other.name.isdecimal()):
            return True
        return int((folder / START).read_text()) > restart_count()
    return False


def record_clean_exit() -> None:
    """Record that this start of the job saved a checkpoint when signalled: its end does not count as a loss.

    Does nothing outside a job.
    """
    if JOB in os.environ:
        with suppress(OSError):  # on a full disk the end counts as a loss
            (Path(os.environ[JOB]) / f"{CLEAN_EXIT}{restart_count()}").touch()
