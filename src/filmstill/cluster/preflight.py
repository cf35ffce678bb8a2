"""Refuse a cluster.yaml that SLURM could never run, before anything is submitted, in one line.

Notable: what SLURM would let wait for ever (a time limit over the partition's) is refused here; everything else is
asked of SLURM itself, by `sbatch --test-only` with the very flags that are submitted; nodes that are down now are no
reason to refuse, since a job waits for them.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstill.cluster import slurm
from filmstill.cluster.config import CLUSTER, STAGES, TRAINING, Cluster, Resources
from filmstill.cluster.scratch import refuse_unshared
from filmstill.errors import FilmstillError, require
from filmstill.params.compute import Compute, micro_batches
from filmstill.params.distill import Distill
from filmstill.params.load import section
from filmstill.params.ode_init import OdeInit

FIELDS = ("Partition", "Time", "Size", "NodeList", "CPUs", "Memory", "Gres", "NodeAddr", "NodeHost", "StateLong")
GPUS = re.compile(r"\bgpu(?::[^:,()]+)?:(\d+)")  # gpu:8, gpu:h100:8(S:0-1), of several kinds: gpu:a100:2,gpu:h100:2
AWAY = re.compile(r"down|drain|fail|maint|reboot|resv|unk|\*", re.IGNORECASE)  # states of a node that no job gets now
NAMED = ("partition", "account", "qos", "constraint")  # what only SLURM can tell to be wrong
SAMPLE_KEY = "0" * 16  # as long as a work folder's


@dataclass(frozen=True)
class Node:
    """A node in one of its partitions."""

    partition: str
    max_seconds: float  # the partition's MaxTime
    max_nodes: float  # the partition's, a job
    name: str
    cpus: int
    memory_mb: int
    gpus: int
    address: str
    host: str
    away: bool  # down, drained or silent now


def sbatch_flags(asked: Resources, name: str) -> dict[str, Any]:
    """The flags of sbatch for a job of this name, in the form of submitit's slurm_additional_parameters."""
    flags = {
        "job_name": name,
        "dependency": "singleton",  # never two of this name at once
        "requeue": True,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "nodes": asked.nodes,
        "ntasks_per_node": asked.tasks,
        "cpus_per_task": asked.cpus_per_task,
        "gpus_per_node": asked.gpus_per_node or None,
        "mem": f"{asked.memory_gb}G" if asked.memory_gb else None,
        "time": asked.time,
        "signal": f"USR2@{asked.signal_seconds}",  # submitit's own choice, to every process
        "wckey": "submitit",  # likewise; named so that it is tested too
        **{flag.replace("-", "_"): value for flag, value in asked.sbatch.items()},
    }
    return {flag: value for flag, value in flags.items() if value is not None}


def sbatch_script(flags: dict[str, Any], lines: list[str]) -> str:
    """What sbatch reads: the flags as submitit writes them, then shell."""
    written = [
        f"--{flag.replace('_', '-')}" + ("" if value is True else f"={shlex.quote(str(value))}")
        for flag, value in sorted(flags.items())
    ]
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {flag}" for flag in written), *lines, ""])


def preflight(stage: str, cluster: Cluster, root: Path) -> None:
    """`refuse_impossible` of a stage and of those that come after it: they would be refused when hours are spent."""
    for each in STAGES[STAGES.index(stage) :]:
        refuse_impossible(each, cluster, root)


def refuse_impossible(stage: str, cluster: Cluster, root: Path) -> None:
    """Raise FilmstillError with one line for what `stage` asks and this cluster cannot give. root: the repository.

    Raises slurm.Unreachable when the controller does not say.
    """
    if not slurm.available():
        raise FilmstillError(
            f"{CLUSTER}: executor: is 'slurm', but SLURM's commands (sbatch, squeue) are not on this machine; "
            "set executor: local, or log in to a login node of the cluster"
        )
    asked = cluster.asked(stage)
    nodes = _partition_nodes(stage, cluster, asked.partition)
    _refuse_too_much(stage, cluster, asked, nodes)
    hosts = {node.name: (node.host, node.address) for node in nodes}
    refuse_unshared(cluster, root, hosts)
    _refuse_what_slurm_refuses(stage, asked, root, nodes)
    _refuse_what_cannot_train(stage, cluster, asked)


def _refuse_what_cannot_train(stage: str, cluster: Cluster, asked: Resources) -> None:
    """What params.yaml and cluster.yaml tell together, before the job has waited for its nodes."""
    compute = section(Compute, "compute")
    gpus = asked.gpus_per_node > 0 or compute.device == "cpu"
    require(gpus, _key(stage, cluster, "gpus_per_node"), 0, "1 or more where compute.device is cuda")
    if stage in TRAINING:
        batch = section(OdeInit, stage).batch if stage == "ode_init" else section(Distill, stage).batch
        micro_batches(batch, compute.micro_batch, f"{stage}.batch", 0, asked.nodes * asked.tasks)


def _partition_nodes(stage: str, cluster: Cluster, wanted: str | None) -> list[Node]:
    """The nodes of the asked partitions (SLURM takes several, with commas), or of the default one."""
    separated = ",".join(f"{field}:{slurm.SEPARATOR}" for field in FIELDS)
    said = slurm.run("sinfo", "--noheader", "--all", "--Node", "--Format", separated)
    rows = [line.split(slurm.SEPARATOR) for line in said.splitlines()]
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
    most = size.rpartition("-")[2]  # 1-infinite
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
    """SLURM's 2-00:00:00, 1:00:00 or 2:00 (minutes); infinity for anything else: infinite, n/a."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", time)
    if not found:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _refuse_too_much(stage: str, cluster: Cluster, asked: Resources, nodes: list[Node]) -> None:
    """More than the partition has, told by the key that asks for it."""

    def at_most(limit: float, wanted: float, key: str, what: str) -> None:
        require(wanted <= limit, _key(stage, cluster, key), getattr(asked, key), f"at most {limit:g}{what}")

    where = f"partition {', '.join(dict.fromkeys(node.partition for node in nodes))}"
    most_gpus, most_cpus = max(node.gpus for node in nodes), max(node.cpus for node in nodes)
    at_most(most_gpus, asked.gpus_per_node, "gpus_per_node", f", which a node of {where} has")
    cpus = f" a process, {asked.tasks} of them a node, since a node of {where} has {most_cpus} CPUs"
    at_most(most_cpus // asked.tasks, asked.cpus_per_task, "cpus_per_task", cpus)
    memory = max(node.memory_mb for node in nodes) // 1024
    if asked.memory_gb:
        at_most(memory, asked.memory_gb, "memory_gb", f", which a node of {where} has (null: do not ask for any)")
    names = {node.name for node in nodes}
    at_most(
        min(len(names), max(node.max_nodes for node in nodes)), asked.nodes, "nodes", f", which {where} gives to a job"
    )
    longest = max(node.max_seconds for node in nodes)
    allowed = f"at most {longest / 60:g} minutes, the MaxTime of {where}; SLURM would let it wait (PartitionTimeLimit)"
    require(asked.seconds <= longest, _key(stage, cluster, "time"), asked.time, allowed)


def _refuse_what_slurm_refuses(stage: str, asked: Resources, root: Path, nodes: list[Node]) -> None:
    flags = sbatch_flags(asked, slurm.job_name(stage, SAMPLE_KEY, root))
    try:
        slurm.run("sbatch", "--test-only", text=sbatch_script(flags, []))
    except FilmstillError as refusal:
        away = any(node.away for node in nodes)
        if not (away and "node configuration is not available" in str(refusal)):
            named = {name: getattr(asked, name) for name in NAMED if getattr(asked, name)} | asked.sbatch
            words = ", ".join(f"{name} {value}" for name, value in named.items()) or "no partition or account by name"
            raise FilmstillError(
                f"{CLUSTER}: stages.{stage}: SLURM refuses the job: {refusal} (asked: {words})"
            ) from None


def _key(stage: str, cluster: Cluster, key: str) -> str:
    """A key by the section that sets it."""
    own = cluster.stages.get(stage) or {}
    return f"{CLUSTER}: stages.{stage}.{key}" if key in own else f"{CLUSTER}: defaults.{key}"
