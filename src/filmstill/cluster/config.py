"""cluster.yaml: the executor, and the resources that each stage requests from SLURM.

An experiment's folder and a git worktree use the cluster.yaml of the checkout that they were made from, unless they
have their own. FILMSTILL_CLUSTER names another file. cluster.example.yaml documents every key. Nothing here is part of
a stage's parameters or key.
"""

import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from filmstill.errors import FilmstillError, require
from filmstill.params.keys import check_intervals, key
from filmstill.params.load import checked, read_plain
from filmstill.work import checkouts

CLUSTER = Path("cluster.yaml")
VARIABLE, NOWHERE = "FILMSTILL_CLUSTER", ("", "none")  # environment variable; its values that mean: compute here
LOCAL, SLURM = "local", "slurm"
EXECUTORS = (LOCAL, SLURM)
SHARDINGS = ("none", "hybrid", "full")  # of networks: replicated on every rank, sharded within a node, over all ranks
STAGES = ("teacher", "ode_pairs", "ode_init", "distill", "samples")  # the stages that SLURM can run
TRAINING = ("ode_init", "distill")  # one job with many ranks each
ALONE = ("teacher",)  # one job with one rank; other stages are fanned out, one such job per shard
TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")
# Flags of sbatch that other keys set, or that finding, stopping and resuming a job depends on.
OWN_FLAGS = (
    *("partition", "account", "qos", "constraint", "nodes", "ntasks", "ntasks_per_node", "cpus_per_task", "time"),
    *("gpus", "gpus_per_node", "gpus_per_task", "mem", "mem_per_cpu", "mem_per_gpu", "signal", "wait", "test_only"),
    *("clusters", "cluster", "export", "export_file", "comment", "ntasks_per_gpu", "cpus_per_gpu"),
    *("distribution", "gpu_bind"),  # a hybrid mesh needs consecutive ranks on a node, each GPU is chosen by LOCAL_RANK
    *("job_name", "dependency", "output", "error", "open_mode", "array", "chdir", "requeue", "no_requeue", "parsable"),
)


@dataclass
class Resources:
    """Resources that a job of one stage requests from SLURM. Raises FilmstillError for a value that is not allowed."""

    partition: str | None = None  # null: the cluster's default
    account: str | None = None
    qos: str | None = None
    nodes: int = key(1, "nodes of a job", "[1, 100000]")
    gpus_per_node: int = key(0, "GPUs on each node", "[0, 1024]")
    tasks_per_node: int | None = key(
        None, "ranks per node; null: one per GPU, or one where there is no GPU", "[1, 1024]"
    )
    cpus_per_task: int = key(2, "CPUs of each rank", "[1, 4096]")
    memory_gb: int | None = key(
        8, "GiB of host memory per node; null: request none, the cluster's default applies", "[1, 1000000]"
    )
    time: str = "1:00:00"  # [days-]hours:minutes:seconds; a training job that needs longer is requeued
    constraint: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)  # other flags of sbatch: {reservation: mine, exclusive: true}
    setup: list[str] = field(default_factory=list)  # shell commands before python: module load cuda/12.9
    python: str | None = None  # runs instead of this python: apptainer exec --nv image.sif python
    signal_seconds: int = key(
        120, "before the time limit, when SLURM signals the job to checkpoint and requeue", "[1, 1000000]"
    )
    sharding: str = "full"  # of networks over ranks: none, hybrid (within a node), full
    offload: bool = False  # frozen networks are kept in host memory

    def __post_init__(self) -> None:
        check_intervals(self)
        require(bool(TIME.fullmatch(self.time)), "time", self.time, "[days-]hours:minutes:seconds, such as 1-00:00:00")
        require(
            not self.gpus_per_node or self.tasks <= self.gpus_per_node,
            "tasks_per_node",
            self.tasks_per_node,
            f"at most gpus_per_node ({self.gpus_per_node}): every rank has its own GPU",
        )
        for name in ("partition", "account", "qos", "constraint", "python"):
            value = getattr(self, name)
            is_text = value is None or (bool(value.strip()) and value.isprintable())
            require(is_text, name, value, "null or some text, on one line")
        for name, value in self.sbatch.items():
            own = name.replace("-", "_") in OWN_FLAGS
            require(
                not own,
                "sbatch",
                name,
                "flags of sbatch that no other key sets and that do not control how a job ends or resumes",
            )
            known = value is True or (isinstance(value, str | int | float) and value is not False)
            allowed = "text, a number, or true for a flag without a value"
            require(known, f"sbatch.{name}", value, allowed)
            is_line = f"{name}{value}".isprintable()  # sbatch reads each line of the script as another flag
            require(is_line, f"sbatch.{name}", value, f"{allowed}, on one line")
        for line in self.setup:
            is_command = isinstance(line, str) and "\0" not in line
            require(is_command, "setup", line, "shell commands, without null characters")
        allowed = f"more than signal_seconds ({self.signal_seconds} s), the time a job has to save its work"
        require(self.seconds > self.signal_seconds, "time", self.time, allowed)
        require(self.sharding in SHARDINGS, "sharding", self.sharding, f"one of {', '.join(SHARDINGS)}")

    @property
    def tasks(self) -> int:
        """Ranks per node."""
        return self.tasks_per_node or max(self.gpus_per_node, 1)

    @property
    def layout(self) -> str:
        """Number of nodes and of ranks per node, in words."""
        return f"{self.nodes} node{'s' * (self.nodes > 1)} x {self.tasks} rank{'s' * (self.tasks > 1)}"

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        days, hours, minutes, seconds = (int(part or 0) for part in TIME.fullmatch(self.time).groups())  # type: ignore[union-attr]
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@dataclass
class Cluster:
    """The whole cluster.yaml. The defaults, used where the file does not exist, run everything on this machine."""

    executor: str = LOCAL
    scratch: str | None = None  # a folder shared by all nodes, for .work; null: the repository itself is shared
    max_requeues: int = key(
        10, "restarts after a lost node or rank; one that checkpointed does not count", "[0, 1000000]"
    )
    poll_seconds: float = key(10.0, "between two queries to SLURM", "(0, 86400]")
    defaults: Resources = field(default_factory=Resources)
    stages: dict[str, Any] = field(default_factory=dict)  # by stage, the keys that differ from the defaults

    def __post_init__(self) -> None:
        require(self.executor in EXECUTORS, "executor", self.executor, f"one of {', '.join(EXECUTORS)}")
        check_intervals(self)
        is_path = self.scratch is None or (Path(self.scratch).is_absolute() and self.scratch.isprintable())
        require(is_path, "scratch", self.scratch, "null or a folder's absolute path, such as /scratch/me")
        for name in self.stages:
            require(name in STAGES, "stages", name, f"{', '.join(STAGES)}: the stages that SLURM can run")

    def resources(self, stage: str) -> Resources:
        """Resources that `stage` requests: its own section over the defaults.

        The job of a shard, or of `teacher`, is one rank on one node with at most one GPU. Raises FilmstillError.
        """
        own = self.stages.get(stage) or {}
        where = f"stages.{stage}"
        values = {**asdict(self.defaults), **own} if isinstance(own, dict) else own
        file = cluster_name()
        _require_mapping(values, "sbatch", f"{file}: {where}.sbatch")
        resources = checked(Resources, values, file, where)
        if stage in TRAINING:
            return resources
        what = f"1: {'it' if stage in ALONE else 'a shard'} has one rank"
        require(own.get("nodes", 1) == 1, f"{file}: {where}.nodes", own.get("nodes"), what)
        gpus = own.get("gpus_per_node", 0)
        require(gpus <= 1, f"{file}: {where}.gpus_per_node", gpus, f"0 or {what}")
        return replace(resources, nodes=1, tasks_per_node=1, gpus_per_node=min(resources.gpus_per_node, 1))


def cluster_file() -> Path | None:
    """The file that says where the stages of the current folder run; None: on this machine.

    Raises FilmstillError where FILMSTILL_CLUSTER names a file that does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named is not None and named in NOWHERE:
        return None
    found = checkouts.find(Path(os.path.expanduser(named or CLUSTER)), Path.cwd())
    exists = found is not None and found.is_file()
    require(named is None or exists, VARIABLE, named, "the path of a file that exists, or none to compute here")
    leads_nowhere = found is None and CLUSTER.is_symlink()  # computing here instead would be a surprise
    require(not leads_nowhere, str(CLUSTER), "a link that leads nowhere", "a file, or no such name to compute here")
    return found


def cluster_name() -> str:
    """The file that the user edits, for messages."""
    with suppress(FilmstillError):  # a message about something else must not be lost
        return str(cluster_file() or CLUSTER)
    return os.environ.get(VARIABLE) or str(CLUSTER)


def read_cluster() -> Cluster:
    """The checked cluster.yaml; defaults where there is none. Raises FilmstillError for a wrong key or value."""
    path = cluster_file()
    if path is None:
        return Cluster()
    values = read_plain(path)
    _keep_times(values, yaml.load(path.read_text(), yaml.BaseLoader))
    _require_mapping(values, "stages", f"{path}: stages")
    _require_mapping(values.get("defaults"), "sbatch", f"{path}: defaults.sbatch")
    cluster = checked(Cluster, values, str(path))
    for stage in cluster.stages:
        cluster.resources(stage)
    return cluster


def _keep_times(values: dict[str, Any], written: Any) -> None:
    """Replace numbers under `time` by the text in the file: YAML reads an unquoted 1:00:00 as the number 3600."""
    written = written if isinstance(written, dict) else {}  # it is text where the mapping is an interpolation
    for name, value in values.items():
        if isinstance(value, dict):
            _keep_times(value, written.get(name))
        elif name == "time" and isinstance(value, int | float):
            values[name] = written.get(name, value)


def _require_mapping(values: Any, key: str, name: str) -> None:
    found = values.get(key, {}) if isinstance(values, dict) else {}
    require(isinstance(found, dict), name, found, "a mapping, such as {key: value}")
