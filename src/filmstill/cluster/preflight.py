"""Refuse, before anything is submitted, a cluster.yaml that SLURM can never run.

What cluster.yaml asks of its partition is compared with the partition here, so that the message names the key; a time
limit above the partition's would even stay pending without end. Accounts, QOS and other flags are checked by SLURM
itself: `sbatch --test-only` gets the same flags as the job. Nodes that are down are no reason to refuse, because a job
waits for them.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstill.cluster import slurm
from filmstill.cluster.config import STAGES, TRAINING, Cluster, Resources, cluster_name
from filmstill.cluster.scratch import refuse_unshared
from filmstill.errors import FilmstillError, require
from filmstill.params.compute import Compute, micro_batches
from filmstill.params.distill import Distill
from filmstill.params.load import Values
from filmstill.params.ode_init import OdeInit

FIELDS = ("Partition", "Time", "Size", "NodeList", "CPUs", "Memory", "Gres", "NodeAddr", "NodeHost", "StateLong")
GPUS = re.compile(r"\bgpu(?::[^:,()]+)?:(\d+)")  # gpu:8, gpu:h100:8(S:0-1), several kinds: gpu:a100:2,gpu:h100:2
AWAY = re.compile(r"down|drain|fail|maint|reboot|resv|unk|\*", re.IGNORECASE)  # node states in which no job starts
NAMED = ("partition", "account", "qos", "constraint")  # keys whose values are named when SLURM refuses the job
SAMPLE_KEY = "0" * 16  # has the length of a work folder's key


@dataclass(frozen=True)
class Node:
    """A node as a member of one partition; a node in several partitions is listed once for each."""

    partition: str
    max_seconds: float  # the partition's MaxTime
    max_nodes: float  # the partition's limit per job
    name: str
    cpus: int
    memory_mb: int
    gpus: int
    address: str
    host: str
    away: bool  # down, drained or not answering


def sbatch_flags(resources: Resources, name: str) -> dict[str, Any]:
    """Flags of sbatch for a job with this name, in the form of submitit's slurm_additional_parameters."""
    flags = {
        "job_name": name,
        "dependency": "singleton",  # no two jobs with this name run at the same time
        "requeue": True,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks,
        "cpus_per_task": resources.cpus_per_task,
        "gpus_per_node": resources.gpus_per_node or None,
        "mem": f"{resources.memory_gb}G" if resources.memory_gb else None,
        "time": resources.time,
        "signal": f"USR2@{resources.signal_seconds}",  # the signal that submitit expects, sent to every rank
        "wckey": "submitit",  # submitit sets it too; here so that --test-only checks it
        **{flag.replace("-", "_"): value for flag, value in resources.sbatch.items()},
    }
    return {flag: value for flag, value in flags.items() if value is not None}


def sbatch_script(flags: dict[str, Any], lines: list[str]) -> str:
    """A batch script: the flags in submitit's notation, then lines of shell."""
    written = [
        f"--{flag.replace('_', '-')}" + ("" if value is True else f"={shlex.quote(str(value))}")
        for flag, value in sorted(flags.items())
    ]
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {flag}" for flag in written), *lines, ""])


def preflight(stage: str, cluster: Cluster, root: Path) -> None:
    """Run `refuse_impossible` for a stage and all later ones, so that none is refused after hours of work.

    Raises FilmstillError, slurm.Unreachable.
    """
    for each in STAGES[STAGES.index(stage) :]:
        refuse_impossible(each, cluster, root)


def refuse_impossible(stage: str, cluster: Cluster, root: Path) -> None:
    """Raise FilmstillError with one line where this cluster cannot give what `stage` requests. root: the repository.

    Raises slurm.Unreachable where the controller does not answer.
    """
    if not slurm.available():
        raise FilmstillError(
            f"{cluster_name()}: executor: is 'slurm', but SLURM's commands (sbatch, squeue) are not on this machine; "
            "set executor: local, or log in to a login node of the cluster"
        )
    resources = cluster.resources(stage)
    nodes = _partition_nodes(stage, cluster, resources.partition)
    _refuse_too_much(stage, cluster, resources, nodes)
    hosts = {node.name: (node.host, node.address) for node in nodes}
    refuse_unshared(cluster, root, hosts)
    _refuse_what_slurm_refuses(stage, resources, root, nodes)
    _refuse_what_cannot_train(stage, cluster, resources)


def _refuse_what_cannot_train(stage: str, cluster: Cluster, resources: Resources) -> None:
    """Check cluster.yaml against params.yaml: GPUs where compute.device needs them, a batch that divides."""
    params = Values.read()
    compute = params.section(Compute, "compute")
    gpus = resources.gpus_per_node > 0 or compute.device == "cpu"
    require(gpus, _key(stage, cluster, "gpus_per_node"), 0, "1 or more where compute.device is cuda")
    if stage in TRAINING:
        batch = params.section(OdeInit, stage).batch if stage == "ode_init" else params.section(Distill, stage).batch
        micro_batches(batch, compute.micro_batch, f"{stage}.batch", 0, resources.nodes * resources.tasks)


def _partition_nodes(stage: str, cluster: Cluster, wanted: str | None) -> list[Node]:
    """Nodes of the partitions in `wanted` (several: separated by commas); None: of the default partition."""
    separated = ",".join(f"{field}:{slurm.SEPARATOR}" for field in FIELDS)
    output = slurm.run("sinfo", "--noheader", "--all", "--Node", "--Format", separated)
    rows = [line.split(slurm.SEPARATOR) for line in output.splitlines()]
    defaults = [row[0].rstrip("*") for row in rows if row[0].endswith("*")]
    there = sorted({row[0].rstrip("*") for row in rows})
    names = wanted.split(",") if wanted else defaults[:1]
    allowed = ", ".join(there) or "none: sinfo shows no partition"
    require(bool(names), _key(stage, cluster, "partition"), wanted, f"{allowed} (the cluster has no default)")
    for name in names:
        require(name in there, _key(stage, cluster, "partition"), name, allowed)
    return [_node(row) for row in rows if row[0].rstrip("*") in names]


def _node(row: list[str]) -> Node:
    partition, time, size, name, cpus, memory, gres, address, host, state, *_ = row
    most = size.rpartition("-")[2]  # such as 1-infinite
    return Node(
        partition=partition.rstrip("*"),
        max_seconds=_seconds(time),
        max_nodes=float(most) if most.isdigit() else float("inf"),
        name=name,
        cpus=int(cpus),
        memory_mb=int(memory),
        gpus=sum(map(int, GPUS.findall(gres))),
        address=address,
        host=host,
        away=bool(AWAY.search(state)),
    )


def _seconds(time: str) -> float:
    """Seconds of SLURM's 2-00:00:00, 1:00:00 or 2:00 (minutes:seconds); infinity for anything else (infinite, n/a)."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", time)
    if not found:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _refuse_too_much(stage: str, cluster: Cluster, resources: Resources, nodes: list[Node]) -> None:
    """Raise FilmstillError, naming the key, where `resources` exceed what the partition has."""

    def at_most(limit: float, wanted: float, key: str, what: str) -> None:
        require(wanted <= limit, _key(stage, cluster, key), getattr(resources, key), f"at most {limit:g}{what}")

    where = f"partition {', '.join(dict.fromkeys(node.partition for node in nodes))}"
    most_gpus, most_cpus = max(node.gpus for node in nodes), max(node.cpus for node in nodes)
    at_most(most_gpus, resources.gpus_per_node, "gpus_per_node", f", which a node of {where} has")
    cpus = f" per rank with {resources.tasks} per node: a node of {where} has {most_cpus} CPUs"
    at_most(most_cpus // resources.tasks, resources.cpus_per_task, "cpus_per_task", cpus)
    memory = max(node.memory_mb for node in nodes) // 1024
    if resources.memory_gb:
        at_most(memory, resources.memory_gb, "memory_gb", f", which a node of {where} has (null: request none)")
    names = {node.name for node in nodes}
    at_most(
        min(len(names), max(node.max_nodes for node in nodes)),
        resources.nodes,
        "nodes",
        f", which {where} gives to a job",
    )
    longest = max(node.max_seconds for node in nodes)
    allowed = f"at most {longest / 60:g} minutes, the MaxTime of {where}; else it stays pending (PartitionTimeLimit)"
    require(resources.seconds <= longest, _key(stage, cluster, "time"), resources.time, allowed)


def _refuse_what_slurm_refuses(stage: str, resources: Resources, root: Path, nodes: list[Node]) -> None:
    """Raise FilmstillError where `sbatch --test-only` refuses the job, unless only because nodes are down."""
    flags = sbatch_flags(resources, slurm.job_name(stage, SAMPLE_KEY, root))
    try:
        slurm.run("sbatch", "--test-only", text=sbatch_script(flags, []))
    except FilmstillError as refusal:
        away = any(node.away for node in nodes)
        if not (away and "node configuration is not available" in str(refusal)):
            named = {name: getattr(resources, name) for name in NAMED if getattr(resources, name)} | resources.sbatch
            words = ", ".join(f"{name} {value}" for name, value in named.items()) or "no partition or account by name"
            raise FilmstillError(
                f"{cluster_name()}: stages.{stage}: SLURM refuses the job: {refusal} (requested: {words})"
            ) from None


def _key(stage: str, cluster: Cluster, key: str) -> str:
    """Name of a key with the section of cluster.yaml that sets it."""
    own = cluster.stages.get(stage) or {}
    return f"{cluster_name()}: stages.{stage}.{key}" if key in own else f"{cluster_name()}: defaults.{key}"
