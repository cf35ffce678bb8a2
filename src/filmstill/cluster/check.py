"""`python -m filmstill cluster check`: run a short job on the nodes and print what has to be fixed.

The job is submitted with the flags of the training. Its ranks report through files in the folder where the work would
be: a node that does not see the scratch leaves no file there, and is named.
"""

import contextlib
import json
import logging
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
from filmstill.cluster import slurm
from filmstill.cluster.check_node import LOGIN_CLOCK, RankReport, Software
from filmstill.cluster.check_results import CheckResults, ShellReport, problems, speed, table
from filmstill.cluster.config import CLUSTER, LOCAL, STAGES, TRAINING, Cluster, Resources, cluster_name, read_cluster
from filmstill.cluster.follow import describe
from filmstill.cluster.preflight import refuse_impossible, sbatch_flags, sbatch_script
from filmstill.cluster.scratch import use_work
from filmstill.errors import FilmstillError, writing_failed
from filmstill.runtime.files import write_text
from filmstill.work import graph
from filmstill.work.folder import WORK

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
LIMIT = 180  # s, the job's time limit: it needs few, but importing torch from a cold file system may take a minute
LATE_SECONDS = 60.0  # after the time limit: SLURM has failed to end the job
VISIBLE_SECONDS = 5.0  # for the reports to become visible here after the job has ended
WAITING = ("PENDING", "CONFIGURING")


def cluster_check(pending_minutes: float) -> None:
    """Print what the jobs of cluster.yaml would find on the nodes. pending_minutes: maximum wait for a job to start.

    Raises FilmstillError where something has to be fixed, after printing one line per problem.
    """
    cluster, root = read_cluster(), graph.repository()
    if cluster.executor == LOCAL:
        print(
            "executor: local, every stage runs on this machine; for SLURM: cp cluster.example.yaml "
            f"{CLUSTER}, edit it, and run this again"
        )
        return
    try:
        _stop_if_any(_refusals(cluster, root))
    except slurm.Unreachable as error:
        raise _no_answer(error) from None
    use_work(cluster, root)
    here, console, to_fix = Software.here(), Console(highlight=False, markup=False), []
    for resources, stages in _layouts(cluster):
        results = _run_job(resources, root, pending_minutes)
        console.print(table(f"{', '.join(stages)}: {resources.layout}", results))
        console.print(speed(results), soft_wrap=True)
        lines = problems(results, resources, None if resources.python else here)
        if not lines:
            shutil.rmtree(results.folder)
        to_fix += lines
    _stop_if_any(to_fix)
    print(f"all well: with this {cluster_name()} `dvc repro` submits its jobs to SLURM")


def _stop_if_any(to_fix: list[str]) -> None:
    for line in to_fix:
        print(f"to fix: {line}")
    if to_fix:
        raise FilmstillError(f"{cluster_name()}: {len(to_fix)} to fix before jobs can run, see above")


def _refusals(cluster: Cluster, root: Path) -> list[str]:
    """The distinct errors of `refuse_impossible` over all stages. Raises slurm.Unreachable."""
    lines = []
    for stage in STAGES:
        try:
            refuse_impossible(stage, cluster, root)
        except FilmstillError as refusal:
            lines.append(str(refusal))
    return list(dict.fromkeys(lines))


def _layouts(cluster: Cluster) -> list[tuple[Resources, list[str]]]:
    """The distinct resources of all stages, apart from time and sharding, each with the stages that request them.

    The job of a shard is left out where a training job gets the same nodes and software, and so shows the same.
    """
    layouts: list[tuple[Resources, list[str]]] = []
    for stage in (*TRAINING, *sorted(set(STAGES) - set(TRAINING))):
        resources = cluster.resources(stage)
        minutes, seconds = divmod(min(LIMIT, resources.seconds), 60)
        time_limit = f"0:{minutes:02d}:{seconds:02d}"
        resources = replace(resources, time=time_limit, signal_seconds=1, sharding="full", offload=False)
        same = next((stages for layout, stages in layouts if layout == resources), None)
        if same is not None:
            same.append(stage)
        elif stage in TRAINING or all(_place(layout) != _place(resources) for layout, _ in layouts):
            layouts.append((resources, [stage]))
    return layouts


def _place(resources: Resources) -> tuple[object, ...]:
    """The values that decide which nodes a job may get and what its python finds there."""
    nodes = (resources.partition, resources.account, resources.qos, resources.constraint, resources.sbatch)
    return (*nodes, resources.gpus_per_node > 0, resources.setup, resources.python)


def _run_job(resources: Resources, root: Path, pending_minutes: float) -> CheckResults:
    """Submit the job, wait for its end and read its reports.

    The job is cancelled where it does not start in time. Raises FilmstillError.
    """
    key = uuid.uuid4().hex[:16]
    folder = (root / WORK).resolve() / "check" / key
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
    write_text(folder / LOGIN_CLOCK, f"{time.time()}")
    results = CheckResults(folder, [])
    try:
        with _submitted(_script(resources, slurm.job_name("check", key, root), folder)) as job_id:
            _wait(job_id, results, pending_minutes)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _read_reports(results, resources.nodes * resources.tasks)
    return results


def _script(resources: Resources, name: str, folder: Path) -> str:
    """The job's batch script."""
    flags = sbatch_flags(resources, name) | {"no_requeue": True, "output": folder / "log.txt"}
    del flags["requeue"], flags["dependency"]
    there = shlex.quote(str(folder))
    # Before Python starts, the shell reports its node, the login node's time as it sees it, and its own time.
    report = f'printf "%s %s %s\\n" "$SLURMD_NODENAME" "$(cat {there}/{LOGIN_CLOCK} || echo none)" "$(date +%s.%N)"'
    python = resources.python or shlex.quote(sys.executable)
    task = f"{report} > {there}/shell-$SLURM_PROCID; exec {python} -m filmstill.cluster.check_node {there}"
    source = shlex.quote(str(Path(filmstill.__file__).resolve().parents[1]))
    srun = f"srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task={resources.cpus_per_task}"
    return sbatch_script(
        flags,
        [
            f"export PYTHONPATH={source} SUBMITIT_EXECUTOR=slurm",
            *resources.setup,
            f"{srun} --output={there}/%t.out --error={there}/%t.err bash -c {shlex.quote(task)}",
        ],
    )


@contextlib.contextmanager
def _submitted(script: str) -> Iterator[str]:
    """Submit a job; yields its id, and cancels the job when the block ends. Raises FilmstillError."""
    try:
        job_id = slurm.run("sbatch", "--parsable", text=script).strip().split(";")[0]
        try:
            yield job_id
        finally:
            slurm.cancel(job_id)
    except slurm.Unreachable as error:
        raise _no_answer(error) from None


def _no_answer(error: slurm.Unreachable) -> FilmstillError:
    return FilmstillError(f"cluster check: SLURM does not answer ({error}); run it again")


def _wait(job_id: str, results: CheckResults, pending_minutes: float) -> None:
    """Wait until the job has ended; meanwhile exchanges times with the nodes to compare the clocks.

    Raises FilmstillError where the job does not start within pending_minutes, or does not end. Raises Unreachable.
    """
    submitted, started, logged = time.monotonic(), None, ""
    while (job := slurm.find(job_id)) is not None and job.alive:
        now = time.monotonic()
        state, _estimate = describe(job)
        if state != logged:
            log.info("job %s: %s", job_id, state)
            logged = state
        if job.state in WAITING and now - submitted > 60 * pending_minutes:
            raise FilmstillError(
                f"cluster check: its job has waited {pending_minutes:g} minutes ({job.reason}) and is cancelled; "
                "look at `sinfo` and `squeue`, run it again with a longer --wait, or request less"
            )
        started = started or (None if job.state in WAITING else now)
        if started and now - started > LIMIT + LATE_SECONDS:
            raise FilmstillError(f"cluster check: job {job_id} does not end ({state}); look at `scontrol show node`")
        if job.nodes and not results.nodes:
            results.nodes = slurm.run("scontrol", "show", "hostnames", job.nodes).split()
        _exchange_times(results)
        time.sleep(POLL_SECONDS)
    if job is not None and job.nodes and not results.nodes:  # the job started and ended between two queries
        results.nodes = slurm.run("scontrol", "show", "hostnames", job.nodes).split()


def _exchange_times(results: CheckResults) -> None:
    """Write the login node's time, and read the shells' reports that have become visible."""
    write_text(results.folder / LOGIN_CLOCK, f"{time.time()}")
    for name in os.listdir(results.folder):
        rank = name.removeprefix("shell-")
        if rank == name or int(rank) in results.shells:
            continue
        words = (results.folder / name).read_text().split()
        if len(words) == 3:  # else the file is just being written
            node, login, there = words
            login_time = None if login == "none" else float(login)
            results.shells[int(rank)] = ShellReport(node, login_time, float(there), time.time())


def _read_reports(results: CheckResults, world_size: int) -> None:
    """Read every rank's report, or the last line of its stderr where it wrote none."""
    end = time.monotonic() + VISIBLE_SECONDS
    while len(list(results.folder.glob("report-*.json"))) < world_size and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    _exchange_times(results)
    for rank in range(world_size):
        report, stderr = results.folder / f"report-{rank}.json", results.folder / f"{rank}.err"
        if report.exists():
            facts = json.loads(report.read_text())
            results.reports[rank] = RankReport(**facts | {"software": Software(**facts["software"])})
        elif stderr.exists() and (text := stderr.read_text(errors="replace").strip()):
            results.errors[rank] = text.splitlines()[-1]
