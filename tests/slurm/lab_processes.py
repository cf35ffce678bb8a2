"""Which processes belong to a throw-away SLURM cluster, found by looking at every process; and their end.

Notable: no pid files, whose number another process may have by now; a daemon is known by its log, which it keeps open,
since SLURM writes its title over a step daemon's environment; what a job started is below its step daemon or, where it
has left its parents, still has the job's environment.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "slurmdbd", "mariadbd")


def daemons(log: Path, names: tuple[str, ...] = DAEMONS) -> list[psutil.Process]:
    """The daemons of these names that have `log`, or a log in the folder `log`, open."""
    return every(
        lambda process: (
            process.name() in names and any(Path(file.path).is_relative_to(log) for file in process.open_files())
        )
    )


def of_jobs(conf: Path, node: str | None) -> list[psutil.Process]:
    """The processes of jobs of the cluster with this slurm.conf, on one node or on any, by their environment."""

    def belongs(process: psutil.Process) -> bool:
        around = process.environ()
        here = around.get("SLURMD_NODENAME")
        return around.get("SLURM_CONF") == str(conf) and here is not None and node in (None, here)

    return every(belongs)


def with_children(parents: Iterable[psutil.Process]) -> list[psutil.Process]:
    """These processes and all below them, each once."""
    found: dict[int, psutil.Process] = {}
    for parent in parents:
        with suppress(psutil.NoSuchProcess):
            found |= {process.pid: process for process in (parent, *parent.children(recursive=True)) if lives(process)}
    return list(found.values())


def every(holds: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """The living processes of which it holds."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if lives(process) and holds(process):
                found.append(process)
    return found


def lives(process: psutil.Process, but: str = "") -> bool:
    """Whether a process is there, in another state than this one.

    A zombie is not there: in containers process 1 may take its time to bury it.
    """
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, but)
    except psutil.NoSuchProcess:
        return False


def freeze(find: Callable[[], list[psutil.Process]]) -> None:
    """Stop (SIGSTOP) until nothing that is found moves."""
    while moving := [process for process in find() if lives(process, but=psutil.STATUS_STOPPED)]:
        for process in moving:
            with suppress(psutil.NoSuchProcess):
                process.suspend()


def destroy(find: Callable[[], list[psutil.Process]]) -> None:
    """kill -9 until nothing is found any more."""
    while processes := find():
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
