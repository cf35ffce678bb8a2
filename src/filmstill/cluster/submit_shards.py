"""Submit shards to SLURM through Snakemake's executor plugin, and find the logs of their jobs.

SLURM writes what a job prints to <work>/logs/slurm/<rule>/<wildcard>/<job>.log.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from filmstill.cluster import slurm
from filmstill.cluster.config import Resources
from filmstill.cluster.job_checkout import CHECKOUT
from filmstill.runtime.files import write_text
from filmstill.work.fanout import private_cache, snakemake
from filmstill.work.shard import shard_log

SBATCH_SECONDS = 60.0  # for one sbatch to end
SUBMITTED = re.compile(r"SLURM jobid (\d+) \(log: (.+)\)")  # in Snakemake's output
REFUSED = re.compile(r"error message was '(?:sbatch: )?(?:error: )?([^'\n]+)|failed with exception: ([^.\n]+)")


def job_logs(work: Path) -> Path:
    """The folder of the logs of a work folder's jobs."""
    return work / "logs" / "slurm"


def logs_by_job(work: Path) -> dict[str, Path]:
    """Log by job id, of the jobs that have printed something."""
    return {path.stem: path for path in job_logs(work).glob("*/*/*.log")}


def job_log(work: Path, job: str) -> Path:
    """The log of one job; the folder of all logs where it does not exist yet."""
    return logs_by_job(work).get(job, job_logs(work))


def latest_jobs(work: Path, shards: list[str], jobs: Iterable[str]) -> dict[str, str]:
    """By shard, the latest of these jobs that has printed something."""
    shard_of, log_of = _shard_by_wildcard(shards), logs_by_job(work)
    ours = [job for job in jobs if job in log_of and log_of[job].parent.name in shard_of]
    return {shard_of[log_of[job].parent.name]: job for job in sorted(ours, key=int)}


def submit_shards(
    name: str, work: Path, shards: list[str], resources: Resources, poll_seconds: float
) -> tuple[dict[str, str], str]:
    """Let Snakemake submit one job per shard from the current checkout, and wait until it has.

    Returns the ids of the jobs that SLURM accepted, by shard, and one line with the reason why it accepted no others.
    """
    write_text(work / CHECKOUT, str(Path.cwd()))
    for shard in shards:
        shard_log(work, shard).unlink(missing_ok=True)  # else an earlier attempt's log would explain this one's failure
    # Snakemake's own check of an account fails where there is no accounting; sbatch's does not.
    account = {"SBATCH_ACCOUNT": resources.account} if resources.account else {}
    with (work / "snakemake.log").open("a+") as log:
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            _command(name, work, shards, resources),
            stdout=log,
            stderr=subprocess.STDOUT,
            close_fds=False,  # Snakemake inherits, and so holds, the work folder's lock while it submits
            start_new_session=True,  # so that Ctrl-C does not interrupt an sbatch
            env={**slurm.environment(), **private_cache(work), **account, "PATH": _path_without_sacct(work)},
        )
        try:
            if process.wait() != 0:
                time.sleep(poll_seconds)  # if Snakemake was killed, one of its sbatch processes may still be running
        except BaseException:
            _stop(process)
            raise
        log.seek(begin)
        output = log.read()
    shard_of = _shard_by_wildcard(shards)
    refused = REFUSED.findall(output)
    return (
        {shard_of[Path(path).parent.name]: job for job, path in SUBMITTED.findall(output)},
        f"{''.join(refused[-1]) if refused else 'Snakemake failed'} (log: {work / 'snakemake.log'})",
    )


def _shard_by_wildcard(shards: list[str]) -> dict[str, str]:
    """Shard by the wildcard of its Snakemake rule: pairs-0003 by 0003."""
    return {shard.partition("-")[2]: shard for shard in shards}


def _command(name: str, work: Path, shards: list[str], resources: Resources) -> list[str]:
    python = work.resolve() / "python.sh"
    start = f'exec {resources.python or shlex.quote(sys.executable)} "$@"'
    write_text(python, "\n".join([*resources.setup, start, ""]))
    cpus = f"cpus={resources.cpus_per_task}"
    return [
        *snakemake(work, "slurm"),
        *("--config", f"root={Path.cwd()}", cpus, f"python=bash {shlex.quote(str(python))}"),
        *("--slurm-jobname-prefix", name),
        *("--slurm-logdir", str(job_logs(work.resolve()))),
        *("--default-resources", *_default_resources(resources)),
        *("--", *(f"shards/{shard}.safetensors" for shard in shards)),
    ]


def _path_without_sacct(work: Path) -> str:
    """A PATH on which sacct fails.

    The plugin calls sacct to find the account of an earlier job and charges the new job to it. It fails where the
    command does not exist, and the account must be cluster.yaml's or the user's default.
    """
    sacct = work.resolve() / "no-accounting" / "sacct"
    write_text(sacct, "#!/bin/sh\nexit 1\n")
    sacct.chmod(0o755)
    return os.pathsep.join([str(sacct.parent), os.environ["PATH"]])


def _default_resources(resources: Resources) -> list[str]:
    """Snakemake's --default-resources for a shard: one process on one node, with one GPU where the stage has GPUs."""
    extra = {"gpus-per-node": resources.gpus_per_node or None, **resources.sbatch}
    gres = extra.pop("gres", None)  # the plugin has a resource for it, and refuses it in slurm_extra
    values = {
        "runtime": -(-resources.seconds // 60),  # minutes
        "mem_mb": (resources.memory_gb or 0) * 1024,  # 0: request none; without the key Snakemake requests 1000
        "nodes": 1,
        "slurm_partition": resources.partition,
        "qos": resources.qos,
        "gres": gres,
        "constraint": resources.constraint,
        "slurm_extra": " ".join(_flag(name, value) for name, value in extra.items() if value not in (None, False)),
    }
    return [f"{name}={value!r}" for name, value in values.items() if value not in (None, "")]


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    # The plugin takes any -J for a job's name, even inside a reservation's name. A shell drops the inserted quotes.
    return flag if value is True else f"{flag}={shlex.quote(str(value))}".replace("-J", "-''J")


def _stop(snakemake: subprocess.Popen) -> None:
    """Kill Snakemake and wait for its last sbatch, so that SLURM's queue lists every job that was submitted."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(snakemake.pid)
        process.suspend()
        sbatch = process.children(recursive=True)
        process.kill()
        psutil.wait_procs(sbatch, SBATCH_SECONDS)
    snakemake.wait()
