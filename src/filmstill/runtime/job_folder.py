"""The folder in which a cluster's job and whoever waits for it tell each other how it goes.

One a submission, named by its number: .work/<stage>/<key>/jobs/<number>.
"""

import os
from contextlib import suppress
from pathlib import Path

JOB = "FILMSTILL_JOB"  # names it to the job's processes
REPORT = "progress.json"
START = "start"  # which of the job's starts, counted by SLURM, its work belongs to
LEFT = "left-"  # with a start's number: it left in order


def restarts() -> int:
    """How often SLURM has started this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def is_superseded() -> bool:
    """Whether SLURM has given up these processes, whose node it lost sight of, and started the job or another again."""
    if JOB not in os.environ:
        return False
    folder = Path(os.environ[JOB])
    with suppress(OSError, ValueError):  # a file system that does not answer this once
        if any(other.name > folder.name for other in folder.parent.iterdir()):
            return True
        return int((folder / START).read_text()) > restarts()
    return False


def note_leave() -> None:
    """Put on record that this start of the job may end now and has lost nothing: no loss that would be counted."""
    if JOB in os.environ:
        with suppress(OSError):  # a full disk: then it counts
            (Path(os.environ[JOB]) / f"{LEFT}{restarts()}").touch()
