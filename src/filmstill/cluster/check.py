"""`python -m filmstill cluster check`: would a job find on the nodes what it needs? Ask one, and say what to fix.

Notable: the job is submitted with the training's own flags; what its processes see is told by files in the very folder
that the work would be in, so a scratch that a node does not see shows as silence, and the node is named.
"""

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import filmstill
from filmstill.cluster import findings, slurm
from filmstill.cluster.check_node import LOGIN, Report, Software
from filmstill.cluster.config import CLUSTER, LOCAL, STAGES, TRAINING, Cluster, Resources, read_cluster
from filmstill.cluster.findings import Findings, Greeting
from filmstill.cluster.follow import state
from filmstill.cluster.preflight import refuse_impossible, sbatch_flags, sbatch_script
from filmstill.cluster.scratch import use_scratch
from filmstill.errors import FilmstillError, writing_failed
from filmstill.runtime.files import write_text
from filmstill.work import graph
from filmstill.work.folder import WORK

POLL_SECONDS = 0.5
LIMIT = 180  # s, of a job that needs few: on a cold file system importing torch alone may take a minute
LATE = 60.0  # s over its limit, then SLURM has failed to end it
SECONDS_TO_SHOW = 5.0  # of files, here, after the job has ended
WAITING = ("PENDING", "CONFIGURING")


def cluster_check(pending_minutes: float) -> None:
    """Print what the jobs of cluster.yaml would find. pending_minutes: how long to wait for the job to start.

    Raises FilmstillError when something is to be fixed; what, is printed before, a line each.
    """
    cluster, root = read_cluster(), graph.repository()
    if cluster.executor == LOCAL:
        print(
            "executor: local, every stage runs on this machine; for SLURM: cp cluster.example.yaml "
            f"{CLUSTER}, edit it, and run this again"
        )
        return
    try:
        _stop_at(_refusals(cluster, root))
    except slurm.Unreachable as silent:
        raise _no_answer(silent) from None
    use_scratch(cluster, root)
    here, console, wrong = Software.here(), Console(highlight=False), []
    for asked, stages in _layouts(cluster):
        found = _ask_nodes(asked, root, pending_minutes)
        console.print(findings.table(f"{', '.join(stages)}: {asked.layout}", found))
        console.print(findings.speed(found), soft_wrap=True)
        problems = findings.problems(found, asked, None if asked.python else here)
        if not problems:
            shutil.rmtree(found.folder)
        wrong += problems
    _stop_at(wrong)
    print("all well: with this cluster.yaml `dvc repro` submits its jobs to SLURM")


def _stop_at(wrong: list[str]) -> None:
    for line in wrong:
        print(f"to fix: {line}")
    if wrong:
        raise FilmstillError(f"{CLUSTER}: {len(wrong)} to fix before jobs can run, see above")


def _refusals(cluster: Cluster, root: Path) -> list[str]:
    lines = []
    for stage in STAGES:
        try:
            refuse_impossible(stage, cluster, root)
        except FilmstillError as refusal:
            lines.append(str(refusal))
    return list(dict.fromkeys(lines))


def _layouts(cluster: Cluster) -> list[tuple[Resources, list[str]]]:
    """What stages ask for apart from time and sharding, each with the stages that ask it.

    A shard's job is left out where a training's, beside it, shows all that it would.
    """
    layouts: list[tuple[Resources, list[str]]] = []
    for stage in (*TRAINING, *sorted(set(STAGES) - set(TRAINING))):
        asked = cluster.asked(stage)
        minutes, seconds = divmod(min(LIMIT, asked.seconds), 60)
        asked = replace(
            asked, time=f"0:{minutes:02d}:{seconds:02d}", signal_seconds=1, sharding="full", offload=False
        )  # fmt: skip
        same = next((stages for layout, stages in layouts if layout == asked), None)
        if same is not None:
            same.append(stage)
        elif stage in TRAINING or all(_place(layout) != _place(asked) for layout, _ in layouts):
            layouts.append((asked, [stage]))
    return layouts


def _place(asked: Resources) -> tuple[object, ...]:
    """Which nodes a job may get, and what its python finds there."""
    nodes = (asked.partition, asked.account, asked.qos, asked.constraint, asked.sbatch)
    return (*nodes, asked.gpus_per_node > 0, asked.setup, asked.python)


def _ask_nodes(asked: Resources, root: Path, pending_minutes: float) -> Findings:
    """Submit the job, wait for its end and read what it left. The job is cancelled if it does not start in time."""
    key = uuid.uuid4().hex[:16]
    folder = (root / WORK).resolve() / "check" / key
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
    write_text(folder / LOGIN, f"{time.time()}")
    found = Findings(folder, [])
    try:
        with _submitted(_script(asked, slurm.job_name("check", key, root), folder)) as job_id:
            _wait(job_id, found, pending_minutes)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _read_reports(found, asked.nodes * asked.tasks)
    return found


def _script(asked: Resources, name: str, folder: Path) -> str:
    flags = {flag: value for flag, value in sbatch_flags(asked, name).items() if flag not in ("requeue", "dependency")}
    flags |= {"no_requeue": True, "output": folder / "log.txt"}
    there = shlex.quote(str(folder))
    # The shell greets before python starts: who, the login's time as it shows there, the time there.
    greet = f'printf "%s %s %s\\n" "$SLURMD_NODENAME" "$(cat {there}/{LOGIN} || echo none)" "$(date +%s.%N)"'
    python = asked.python or shlex.quote(sys.executable)
    task = f"{greet} > {there}/hello-$SLURM_PROCID; exec {python} -m filmstill.cluster.probe {there}"
    source = shlex.quote(str(Path(filmstill.__file__).resolve().parents[1]))
    srun = f"srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task={asked.cpus_per_task}"
    return sbatch_script(
        flags,
        [
            f"export PYTHONPATH={source} SUBMITIT_EXECUTOR=slurm",
            *asked.setup,
            f"{srun} --output={there}/%t.out --error={there}/%t.err bash -c {shlex.quote(task)}",
        ],
    )


@contextlib.contextmanager
def _submitted(script: str) -> Iterator[str]:
    """The id of a job that does not outlive the block."""
    try:
        job_id = slurm.run("sbatch", "--parsable", text=script).strip().split(";")[0]
        try:
            yield job_id
        finally:
            slurm.cancel(job_id)
    except slurm.Unreachable as silent:
        raise _no_answer(silent) from None


def _no_answer(silent: slurm.Unreachable) -> FilmstillError:
    return FilmstillError(f"cluster check: SLURM does not answer ({silent}); run it again")


def _wait(job_id: str, found: Findings, pending_minutes: float) -> None:
    """Until the job has ended; meanwhile the clocks are compared."""
    submitted, started, said = time.monotonic(), None, ""
    while (job := slurm.find(job_id)) is not None and job.alive:
        now = time.monotonic()
        shown, _estimate = state(job)
        if shown != said:
            print(f"job {job_id}: {shown}", file=sys.stderr, flush=True)
            said = shown
        if job.state in WAITING and now - submitted > 60 * pending_minutes:
            raise FilmstillError(
                f"cluster check: its job has waited {pending_minutes:g} minutes ({job.reason}) and is cancelled; "
                "look at `sinfo` and `squeue`, run it again with a longer --wait, or ask for less"
            )
        started = started or (None if job.state in WAITING else now)
        if started and now - started > LIMIT + LATE:
            raise FilmstillError(f"cluster check: job {job_id} does not end ({shown}); look at `scontrol show node`")
        if job.nodes and not found.nodes:
            found.nodes = slurm.run("scontrol", "show", "hostnames", job.nodes).split()
        _exchange_times(found)
        time.sleep(POLL_SECONDS)
    if job is not None and job.nodes and not found.nodes:  # over between two questions
        found.nodes = slurm.run("scontrol", "show", "hostnames", job.nodes).split()


def _exchange_times(found: Findings) -> None:
    """Show the login's time, note when greetings show up."""
    write_text(found.folder / LOGIN, f"{time.time()}")
    for name in os.listdir(found.folder):
        rank = name.removeprefix("hello-")
        if rank == name or int(rank) in found.greetings:
            continue
        words = (found.folder / name).read_text().split()
        if len(words) == 3:  # else it is just being written
            node, login, there = words
            known = None if login == "none" else float(login)
            found.greetings[int(rank)] = Greeting(node, known, float(there), time.time())


def _read_reports(found: Findings, processes: int) -> None:
    end = time.monotonic() + SECONDS_TO_SHOW
    while len(list(found.folder.glob("report-*.json"))) < processes and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    _exchange_times(found)
    for rank in range(processes):
        report, errors = found.folder / f"report-{rank}.json", found.folder / f"{rank}.err"
        if report.exists():
            facts = json.loads(report.read_text())
            found.reports[rank] = Report(**facts | {"software": Software(**facts["software"])})
        elif errors.exists() and (said := errors.read_text(errors="replace").strip()):
            found.said[rank] = said.splitlines()[-1]
