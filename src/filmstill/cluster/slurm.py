"""SLURM's commands: query, cancel and requeue jobs. Every command has a time limit.

A controller that does not answer raises `Unreachable`, which is not the same as a job that no longer exists. Only
`find` uses accounting, and only for jobs that the controller has forgotten (MinJobAge, 5 minutes by default).
"""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.work.folder import WORK

TIMEOUT = 60  # s; the commands give up on a silent controller after some 20 s, but never on a hanging munge
SEPARATOR = "\x1f"  # a control character, which no job name contains and hardly a path
FIELDS = ("JobArrayID", "Name", "State", "Reason", "StartTime", "RestartCnt", "NodeList", "WorkDir")
ACCOUNTED = ("JobID", "JobName", "State", "Reason", "Start", "NodeList", "WorkDir")
NO_TIME = ("N/A", "Unknown", "None", "")  # for a start that SLURM has not estimated
NAME = re.compile(r"([a-z_]+)-([0-9a-z]+)[.-]([0-9a-f]{8})(?:_[0-9a-f-]+)?")  # a shard's: -<tag>_<uuid of Snakemake>

HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
ALIVE = frozenset(
    [
        "PENDING",
        "CONFIGURING",  # its nodes are being booted or prepared
        "RUNNING",
        "COMPLETING",  # its processes are being ended and may still write; then it is over, or PENDING again
        "SUSPENDED",
        "STOPPED",  # by SIGSTOP; the job keeps its nodes
        "SIGNALING",  # it is being signalled, as before a preemption
        "STAGE_OUT",  # of a burst buffer
        "RESIZING",
        "REQUEUED",
        "REQUEUE_FED",
        *HELD,
        "POWER_UP_NODE",
        "EXPEDITING",
        "UPDATE_DB",
    ]
)  # without PREEMPTED: a job that is preempted and requeued is COMPLETING, then PENDING
NO_ANSWER = re.compile(
    "unable to contact|timed out|connection (refused|reset)|communication connection|zero bytes|standby mode|"
    "munge|authentication|unexpected message|send/receive|configuration source|temporarily unavailable",
    re.IGNORECASE,
)
# Variables that hide jobs (SQUEUE_PARTITION), change the format of times, or belong to a job that runs this process.
SLURM_VARIABLE = re.compile("(SLURM|SBATCH|SQUEUE|SACCT|SINFO|SCANCEL)_")
ERROR_PREFIX = re.compile(r"^(\w+: )?((error|fatal|allocation failure): )?")


class Unreachable(Exception):
    """The controller does not answer: the state of the job is unknown."""


@dataclass(frozen=True)
class QueuedJob:
    """A job as SLURM lists it."""

    id: str
    name: str
    state: str  # one word, such as RUNNING
    reason: str  # why it is pending, or why it ended; "None" without a reason
    begins: str | None  # when it started, or SLURM's estimate; None without one
    restarts: int  # 0 where only accounting still knows the job
    nodes: str  # in SLURM's notation: node[1-2]
    folder: str  # its working directory

    @property
    def alive(self) -> bool:
        """Whether the job is running, pending or will run again."""
        return self.state in ALIVE

    @property
    def is_shard(self) -> bool:
        """Whether the job makes a shard: its name contains no dot, because Snakemake does not allow one."""
        return "." not in self.name

    @property
    def waits_for(self) -> str:
        """SLURM's reason why the job is pending; `new` where the scheduler has not considered it yet."""
        return "new" if self.reason == "None" else self.reason

    @property
    def is_held(self) -> bool:
        """Whether the job is pending until somebody releases it."""
        return self.state in HELD or (self.state == "PENDING" and "held" in self.reason.lower())


def available() -> bool:
    """Whether SLURM's commands are installed on this machine."""
    return all(shutil.which(command) for command in ("sbatch", "squeue", "scontrol", "scancel"))


def refuse_missing() -> None:
    """Raise Unreachable where SLURM's commands are not installed, as on a workstation with the cluster's disk."""
    if not available():
        raise Unreachable("its commands are not on this machine")


def environment() -> dict[str, str]:
    """This process's environment without the variables that would change a job or the output of a command."""
    return {name: value for name, value in os.environ.items() if not SLURM_VARIABLE.match(name) or name == "SLURM_CONF"}


def run(*words: str, text: str | None = None) -> str:
    """The output of one SLURM command. text: its stdin.

    Raises FilmstillError with the last line of its error, Unreachable where the controller does not answer.
    """
    try:
        done = subprocess.run(
            words,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=environment(),
            errors="replace",
        )
    except FileNotFoundError:
        raise FilmstillError(
            f"{words[0]}: not on this machine; log in to a login node of the cluster, or set executor: local"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{words[0]} has not answered for {TIMEOUT} s") from None
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip() and not line.startswith("Try ")]
    reason = ERROR_PREFIX.sub("", lines[-1]) if lines else f"exit code {done.returncode}"
    raise Unreachable(reason) if NO_ANSWER.search(reason) else FilmstillError(f"{words[0]}: {reason}")


def queued(name: str | None = None) -> list[QueuedJob]:
    """This user's jobs that SLURM still knows, alive or over, oldest first. name: only jobs with this name."""
    named = ["--name", name] if name else []
    return sorted(_squeue("--me", *named), key=lambda job: [int(part) for part in re.findall(r"\d+", job.id)])


def live_jobs(root: Path) -> list[QueuedJob]:
    """The pending and running jobs, shards' included, in the `.work` of the checkout at `root`. Raises Unreachable."""
    named = ((job, parse_name(job.name)) for job in queued())
    here = [job for job, name in named if job.alive and name is not None and name[2] == tag(root)]
    return [job for job in here if works_in(job, root)]


def works_in(job: QueuedJob, root: Path) -> bool:
    """Whether a job whose name has the tag of `root` works in its `.work`: another clone may have the same tag.

    A training's directory is a checkout, which may have been removed, a shard's its work folder.
    """
    work, folder = (root / WORK).resolve(), Path(job.folder)
    return not folder.is_dir() or folder.resolve().is_relative_to(work) or (folder / WORK).resolve() == work


def find(job_id: str) -> QueuedJob | None:
    """A job by its id; None where SLURM no longer knows it. A new cluster reuses ids: the caller must check the name.

    Raises Unreachable.
    """
    try:
        jobs = _squeue("--jobs", job_id)
    except FilmstillError as error:
        if "invalid job id" not in str(error).lower():  # any other error does not mean that the job is unknown
            raise Unreachable(str(error)) from None
        jobs = _sacct(job_id)
    return jobs[0] if jobs else None


def cancel(*job_ids: str) -> None:
    """Cancel jobs; a job that is over is not changed. Raises FilmstillError, Unreachable."""
    run("scancel", *job_ids)


def requeue(job_id: str) -> None:
    """End a job and put it back into the queue under the same id. Raises FilmstillError, Unreachable."""
    run("scontrol", "requeue", job_id)


def digest(path: Path) -> str:
    """8 hex digits of the SHA-256 of a resolved path."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]


def tag(root: Path) -> str:
    """The digest of a repository's `.work` folder: it distinguishes its jobs from those of another clone.

    All checkouts that share a `.work` have the same tag, so that each finds the others' jobs.
    """
    return digest(root / WORK)


def job_name(stage: str, key: str, root: Path) -> str:
    """Name of a stage's job: <stage>-<key>.<tag>"""
    return f"{stage}-{key}.{tag(root)}"


def parse_name(name: str) -> tuple[str, str, str] | None:
    """(stage, key, tag) of the name of a stage's or a shard's job; None for any other name."""
    found = NAME.fullmatch(name)
    return (found[1], found[2], found[3]) if found else None


def _squeue(*which: str) -> list[QueuedJob]:
    # A separator instead of a width after the colon: else squeue cuts fields to 20 characters.
    fields = ",".join(f"{field}:{SEPARATOR}" for field in FIELDS)
    output = run("squeue", "--noheader", "--all", "--states=all", *which, "--Format", fields)
    rows = [line.split(SEPARATOR) for line in output.splitlines()]
    return [
        QueuedJob(id_, name, state, reason, None if begins in NO_TIME else begins, int(restarts), nodes, folder)
        for id_, name, state, reason, begins, restarts, nodes, folder, *_ in rows
    ]


def _sacct(job_id: str) -> list[QueuedJob]:
    """Finished jobs with that id according to accounting; [] without accounting.

    A job that is running according to accounting alone is left out: the controller does not know it any more.
    """
    try:
        fields = ",".join(ACCOUNTED)
        command = ("sacct", "--noheader", "--allocations", "--parsable2", f"--delimiter={SEPARATOR}")
        output = run(*command, "--jobs", job_id, "--format", fields)
    except (FilmstillError, Unreachable):
        return []
    rows = [line.split(SEPARATOR) for line in output.splitlines()]
    jobs = [  # the first word of `CANCELLED by 0`
        QueuedJob(id_, name, state.split()[0], reason, None if begins in NO_TIME else begins, 0, nodes, folder)
        for id_, name, state, reason, begins, nodes, folder in rows
    ]
    return [job for job in jobs if not job.alive]
