"""Find the processes of a temporary SLURM cluster by searching all processes, and kill them.

Pid files are not used: another process may have the number by now. A daemon is recognised by its log, which it keeps
open, because SLURM overwrites a step daemon's environment with its title. A process that a job started is a descendant
of its step daemon or, where it has detached itself, still has the job's environment.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

DAEMONS = ("munged", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "slurmdbd", "mariadbd")


def daemons(log: Path, names: tuple[str, ...] = DAEMONS) -> list[psutil.Process]:
    """The daemons with these names that have `log`, or a file in the folder `log`, open."""
    return every(
        lambda process: (
            process.name() in names and any(Path(file.path).is_relative_to(log) for file in process.open_files())
        )
    )


def of_jobs(conf: Path, node: str | None) -> list[psutil.Process]:
    """Processes of the jobs of the cluster with this slurm.conf, by their environment. node: None for all nodes."""

    def belongs(process: psutil.Process) -> bool:
        variables = process.environ()
        here = variables.get("SLURMD_NODENAME")
        return variables.get("SLURM_CONF") == str(conf) and here is not None and node in (None, here)

    return every(belongs)


def with_children(parents: Iterable[psutil.Process]) -> list[psutil.Process]:
    """These processes and all their descendants, each once."""
    found: dict[int, psutil.Process] = {}
    for parent in parents:
        with suppress(psutil.NoSuchProcess):
            found |= {process.pid: process for process in (parent, *parent.children(recursive=True)) if lives(process)}
    return list(found.values())


def every(holds: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """The living processes for which `holds` is true."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if lives(process) and holds(process):
                found.append(process)
    return found


def lives(process: psutil.Process, but: str = "") -> bool:
    """Whether a process exists and is not in the state `but`.

    A zombie does not count as living: in a container, process 1 may reap it late.
    """
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, but)
    except psutil.NoSuchProcess:
        return False


def freeze(find: Callable[[], list[psutil.Process]]) -> None:
    """Send SIGSTOP until every process that `find` returns is stopped."""
    while moving := [process for process in find() if lives(process, but=psutil.STATUS_STOPPED)]:
        for process in moving:
            with suppress(psutil.NoSuchProcess):
                process.suspend()


def destroy(find: Callable[[], list[psutil.Process]]) -> None:
    """Send SIGKILL until `find` returns no process."""
    while processes := find():
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)
