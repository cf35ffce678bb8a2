"""Shards submitted to SLURM by Snakemake's executor plugin, which leaves once they are in the queue."""

import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from filmstill.cluster import slurm
from filmstill.cluster.config import Resources
from filmstill.cluster.shard_logs import by_wildcard, logs
from filmstill.runtime.files import write_text
from filmstill.work.fanout import snakemake
from filmstill.work.shard import log_of

SECONDS_TO_SUBMIT = 60.0  # one sbatch
SUBMITTED = re.compile(r"SLURM jobid (\d+) \(log: (.+)\)")  # in Snakemake's log
REFUSED = re.compile(r"error message was '(?:sbatch: )?(?:error: )?([^'\n]+)|failed with exception: ([^.\n]+)")


def submit_shards(
    name: str, work: Path, shards: list[str], asked: Resources, poll_seconds: float
) -> tuple[dict[str, str], str]:
    """Let Snakemake submit a job for each shard: the ids of those that SLURM took, by shard; why it took no others."""
    for shard in shards:
        log_of(work, shard).unlink(missing_ok=True)  # of an earlier try: it must not speak for this one
    # Snakemake's own check of an account fails where there is no accounting, sbatch's does not.
    account = {"SBATCH_ACCOUNT": asked.account} if asked.account else {}
    with (work / "snakemake.log").open("a+") as log:
        begin = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            _command(name, work, shards, asked),
            stdout=log,
            stderr=subprocess.STDOUT,
            close_fds=False,  # it holds the work folder's flock for as long as it submits
            start_new_session=True,  # so that Ctrl-C does not cut off an sbatch
            env={**slurm.environment(), **account, "PATH": _without_sacct(work)},
        )
        try:
            if process.wait() != 0:
                time.sleep(poll_seconds)  # killed, it may have left an sbatch that is about to end
        except BaseException:
            _stop(process)
            raise
        log.seek(begin)
        said = log.read()
    shard_of = by_wildcard(shards)
    refused = REFUSED.findall(said)
    return (
        {shard_of[Path(path).parent.name]: job for job, path in SUBMITTED.findall(said)},
        f"{''.join(refused[-1]) if refused else 'Snakemake failed'} (log: {work / 'snakemake.log'})",
    )


def _command(name: str, work: Path, shards: list[str], asked: Resources) -> list[str]:
    python = work.resolve() / "python.sh"
    write_text(python, "\n".join([*asked.setup, f'exec {asked.python or shlex.quote(sys.executable)} "$@"', ""]))
    return [
        *snakemake(work, "slurm"),
        *("--config", f"root={Path.cwd()}", f"cpus={asked.cpus_per_task}", f"python=bash {shlex.quote(str(python))}"),
        *("--slurm-jobname-prefix", name),
        *("--slurm-logdir", str(logs(work.resolve()))),
        *("--default-resources", *_resources(asked)),
        *("--", *(f"shards/{shard}.safetensors" for shard in shards)),
    ]


def _without_sacct(work: Path) -> str:
    """A PATH on which sacct fails. The plugin asks it for the account of some job before, to charge this one to; it
    breaks where a site has no such command, and the account is cluster.yaml's, or the user's own."""
    sacct = work.resolve() / "no-accounting" / "sacct"
    write_text(sacct, "#!/bin/sh\nexit 1\n")
    sacct.chmod(0o755)
    return os.pathsep.join([str(sacct.parent), os.environ["PATH"]])


def _resources(asked: Resources) -> list[str]:
    """What Snakemake asks of SLURM for each shard: one process on one node, with one GPU where the stage has GPUs."""
    extra = {"gpus-per-node": asked.gpus_per_node or None, **asked.sbatch}
    gres = extra.pop("gres", None)  # the plugin has a resource of its own for it, and refuses it elsewhere
    wanted = {
        "runtime": -(-asked.seconds // 60),  # minutes
        "mem_mb": (asked.memory_gb or 0) * 1024,  # 0: do not ask; left out, Snakemake would ask for 1000
        "nodes": 1,
        "slurm_partition": asked.partition,
        "qos": asked.qos,
        "gres": gres,
        "constraint": asked.constraint,
        "slurm_extra": " ".join(_flag(name, value) for name, value in extra.items() if value not in (None, False)),
    }
    return [f"{name}={value!r}" for name, value in wanted.items() if value not in (None, "")]


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    # The plugin takes any -J, within a reservation's name too, for a job's name; to a shell the quotes are nothing.
    return flag if value is True else f"{flag}={shlex.quote(str(value))}".replace("-J", "-''J")


def _stop(snakemake: subprocess.Popen) -> None:
    """Kill Snakemake and wait for its last sbatch: then SLURM's queue shows every job that there will be."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(snakemake.pid)
        process.suspend()
        sbatch = process.children(recursive=True)
        process.kill()
        psutil.wait_procs(sbatch, SECONDS_TO_SUBMIT)
    snakemake.wait()
