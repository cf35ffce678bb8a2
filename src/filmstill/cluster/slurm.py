"""What SLURM says of jobs, and the few things asked of it: one command each, split safely, never without an end.

Notable: a controller that does not answer is `Unreachable`, which is not the same as a job that is gone; only
`find` needs accounting, and only for jobs that the controller has forgotten (MinJobAge, 5 minutes by default).
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

TIMEOUT = 60  # s; the commands themselves give up after some 20 s, but wait for a hanging munge for ever
SEPARATOR = "\x1f"  # a control character: in no name of a job, and hardly in a folder's
FIELDS = ("JobArrayID", "Name", "State", "Reason", "StartTime", "RestartCnt", "NodeList", "WorkDir")
ACCOUNTED = ("JobID", "JobName", "State", "Reason", "Start", "NodeList", "WorkDir")
NOT_YET = ("N/A", "Unknown", "None", "")  # of a start that SLURM has not estimated
NAME = re.compile(r"([a-z_]+)-([0-9a-z]+)[.-]([0-9a-f]{4})(?:_[0-9a-f-]+)?")  # of a shard: -<tag>_<uuid of Snakemake's>

HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
ALIVE = frozenset(
    [
        "PENDING",
        "CONFIGURING",  # its nodes are booted or prepared
        "RUNNING",
        "COMPLETING",  # its processes are being ended: they may still write; then it is over, or PENDING once more
        "SUSPENDED",
        "STOPPED",  # by SIGSTOP; it keeps its nodes
        "SIGNALING",  # being told to end, as before a preemption
        "STAGE_OUT",  # of a burst buffer
        "RESIZING",
        "REQUEUED",
        "REQUEUE_FED",
        *HELD,
        "POWER_UP_NODE",
        "EXPEDITING",
        "UPDATE_DB",
    ]
)  # PREEMPTED is not among them: a job that is preempted and requeued is COMPLETING, then PENDING
NO_ANSWER = re.compile(
    "unable to contact|timed out|connection (refused|reset)|communication connection|zero bytes|standby mode|"
    "munge|authentication|unexpected message|send/receive|configuration source|temporarily unavailable",
    re.IGNORECASE,
)
# Variables that hide jobs (SQUEUE_PARTITION), change times, or come from a job that this process is part of.
OPTION = re.compile("(SLURM|SBATCH|SQUEUE|SACCT|SINFO|SCANCEL)_")
SPEAKER = re.compile(r"^(\w+: )?((error|fatal|allocation failure): )?")


class Unreachable(Exception):
    """The controller does not answer now; nothing is known of the job."""


@dataclass(frozen=True)
class Job:
    """A job as SLURM shows it."""

    id: str
    name: str
    state: str  # one word, such as RUNNING
    reason: str  # why it waits, or why it ended; "None" where there is none
    begins: str | None  # when it started, or SLURM's estimate; None where it has none
    restarts: int  # 0 where only accounting still knows of it
    nodes: str  # as SLURM writes them: node[1-2]
    folder: str  # its working directory

    @property
    def alive(self) -> bool:
        """Whether it runs, waits or will run again."""
        return self.state in ALIVE

    @property
    def waits_for(self) -> str:
        """Why it waits, by SLURM's word; it has none for a job that it has not looked at yet."""
        return "new" if self.reason == "None" else self.reason

    @property
    def is_held(self) -> bool:
        """Whether it waits for someone to release it."""
        return self.state in HELD or (self.state == "PENDING" and "held" in self.reason.lower())


def available() -> bool:
    """Whether SLURM's commands are on this machine."""
    return all(shutil.which(command) for command in ("sbatch", "squeue", "scontrol", "scancel"))


def refuse_missing() -> None:
    """Raise Unreachable where the commands are not: nobody can be asked, on a workstation beside the cluster, say."""
    if not available():
        raise Unreachable("its commands are not on this machine")


def environment() -> dict[str, str]:
    """This process's, without what would change a job or an answer beside cluster.yaml."""
    return {name: value for name, value in os.environ.items() if not OPTION.match(name) or name == "SLURM_CONF"}


def run(*words: str, text: str | None = None) -> str:
    """The output of one command of SLURM's. text: what it reads from stdin.

    Raises FilmstillError with SLURM's own last line, Unreachable when the controller does not answer.
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
    said = SPEAKER.sub("", lines[-1]) if lines else f"exit code {done.returncode}"
    raise Unreachable(said) if NO_ANSWER.search(said) else FilmstillError(f"{words[0]}: {said}")


def queued(name: str | None = None) -> list[Job]:
    """This user's jobs that SLURM still knows, alive or over, oldest first; those of this name if one is given."""
    named = ["--name", name] if name else []
    return sorted(_squeue("--me", *named), key=lambda job: [int(part) for part in re.findall(r"\d+", job.id)])


def alive_of(root: Path) -> list[Job]:
    """This repository's jobs that wait or run, shards' too; a clone elsewhere has a tag of its own."""
    named = ((job, parse_name(job.name)) for job in queued())
    here = [job for job, name in named if job.alive and name is not None and name[2] == tag(root)]
    # Its four digits may be another clone's too. A shard's folder is its work folder, which may be in a scratch.
    folders = (root.resolve(), (root / WORK).resolve())
    return [job for job in here if any(Path(job.folder).resolve().is_relative_to(folder) for folder in folders)]


def find(job_id: str) -> Job | None:
    """A job by its id; None: SLURM does not know of it any more. Ids start anew on a new cluster: check the name.

    Raises Unreachable when the controller does not say.
    """
    try:
        jobs = _squeue("--jobs", job_id)
    except FilmstillError as error:
        if "invalid job id" not in str(error).lower():  # the one refusal that means: I do not know it
            raise Unreachable(str(error)) from None
        jobs = _sacct(job_id)
    return jobs[0] if jobs else None


def cancel(*job_ids: str) -> None:
    """End jobs; nothing happens to one that is over."""
    run("scancel", *job_ids)


def requeue(job_id: str) -> None:
    """End a job and let it wait to start anew under the same id."""
    run("scontrol", "requeue", job_id)


def tag(root: Path) -> str:
    """What tells this repository's jobs from those of another clone of it: 4 hex digits of its path's SHA-256."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:4]


def job_name(stage: str, key: str, root: Path) -> str:
    """<stage>-<key>.<tag>"""
    return f"{stage}-{key}.{tag(root)}"


def parse_name(name: str) -> tuple[str, str, str] | None:
    """(stage, key, tag) of a name of `job_name` or of a shard's job; None for any other."""
    found = NAME.fullmatch(name)
    return (found[1], found[2], found[3]) if found else None


def _squeue(*which: str) -> list[Job]:
    # A separator without a width after the colon: fields come whole, not cut to 20 characters.
    fields = ",".join(f"{field}:{SEPARATOR}" for field in FIELDS)
    said = run("squeue", "--noheader", "--all", "--states=all", *which, "--Format", fields)
    rows = [line.split(SEPARATOR) for line in said.splitlines()]
    return [
        Job(id_, name, state, reason, None if begins in NOT_YET else begins, int(restarts), nodes, folder)
        for id_, name, state, reason, begins, restarts, nodes, folder, *_ in rows
    ]


def _sacct(job_id: str) -> list[Job]:
    """What accounting still knows, where there is accounting; one that runs according to it alone is long gone."""
    try:
        fields = ",".join(ACCOUNTED)
        command = ("sacct", "--noheader", "--allocations", "--parsable2", f"--delimiter={SEPARATOR}")
        said = run(*command, "--jobs", job_id, "--format", fields)
    except (FilmstillError, Unreachable):
        return []
    rows = [line.split(SEPARATOR) for line in said.splitlines()]
    jobs = [
        Job(
            id_, name, state.split()[0], reason, None if begins in NOT_YET else begins, 0, nodes, folder
        )  # CANCELLED by 0
        for id_, name, state, reason, begins, nodes, folder in rows
    ]
    return [job for job in jobs if not job.alive]
