"""The configuration files of a temporary SLURM cluster: slurm.conf, gres.conf and slurmdbd.conf, as text.

Several slurmd run on one host, each on its own port. Fake H100s are character devices. There is a partition for every
kind of trouble: `low` is preempted by `high`, `short` has a small time limit, the only node of `far` is another host.
"""

import os
from pathlib import Path

from filmstill.errors import FilmstillError

DATABASE_PASSWORD = "slurm"  # of a database that listens on 127.0.0.1 only and is deleted with the cluster
SOCKET = 107  # maximum length of a Unix socket's path, in bytes
GRACE_SECONDS = 20  # from the signal before a preemption to the kill
KILL_SECONDS = 2  # from SIGTERM to SIGKILL when a job is cancelled


def refuse_long(folder: Path, nodes: list[str]) -> None:
    """Raise FilmstillError where paths of SLURM's sockets would be too long: SLURM reports only `launch failed`."""
    longest = max(len(f"{folder}/spool/{name}/{name}_{10**9}.{10**9}") for name in nodes)  # the socket of a job's step
    if longest > SOCKET:
        raise FilmstillError(
            f"{folder}: is {len(str(folder))} letters long, allowed: {len(str(folder)) - longest + SOCKET}; set TMPDIR"
        )


def slurm_conf(folder: Path, nodes: list[str], each: str, port: int, accounting: bool) -> str:
    """slurm.conf of a cluster in `folder`; every node has the resources `each` (CPUs=… RealMemory=… Gres=…).

    port: slurmctld's; the nodes' ports follow, then slurmdbd's. Settings that need a reason:
    FirstJobId: job ids of several clusters on this machine differ, because the id gives the port of the rendezvous;
    MinJobAge: SLURM does not forget a job while a test runs;
    cred_expire: a requeued job waits this long; SLURM silently refuses less than 5 s;
    DefMemPerCPU: without it a job takes all memory of a node;
    preempt_send_user_signal: a preempted job gets the signal that it requested;
    SlurmdTimeout, MessageTimeout: a silent node is down after 13 s.
    """
    storage = "AccountingStorageType=accounting_storage/none"
    if accounting:
        storage = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port + len(nodes) + 1}
AccountingStoragePass={munge_socket(folder)}
AccountingStorageTRES=gres/gpu"""
    return f"""ClusterName=lab
SlurmctldHost={os.uname().nodename}(127.0.0.1)
SlurmctldPort={port}
FirstJobId={2 * port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge_socket(folder)},cred_expire=5
CredType=cred/munge
{storage}
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait={KILL_SECONDS}
MinJobAge=3600
SlurmdTimeout=5
MessageTimeout=4
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/pid/slurmctld
SlurmdPidFile={folder}/pid/%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
GresTypes=gpu
{_nodes_and_partitions(nodes, each, port)}"""


def _nodes_and_partitions(nodes: list[str], each: str, port: int) -> str:
    host, every = os.uname().nodename, ",".join(nodes)
    lines = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 1 + number} {each} State=UNKNOWN"
        for number, name in enumerate(nodes)
    )
    return f"""{lines}
NodeName=far1 NodeHostname=far1 NodeAddr=192.0.2.1 {each} State=DOWN Reason="another host"
PartitionName=main Nodes={every} Default=YES MaxTime=INFINITE PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes={every} MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime={GRACE_SECONDS}
PartitionName=high Nodes={every} MaxTime=INFINITE PriorityTier=9 PreemptMode=OFF
PartitionName=short Nodes={every} MaxTime=2 PriorityTier=5 PreemptMode=OFF
PartitionName=far Nodes=far1 MaxTime=INFINITE PriorityTier=5 PreemptMode=OFF
"""


def gres_conf(folder: Path, nodes: list[str], gpus: int) -> str:
    """gres.conf with character devices as GPUs: SLURM sets CUDA_VISIBLE_DEVICES only for such files."""
    return f"NodeName={','.join(nodes)} Name=gpu Type=h100 File={folder}/dev/gpu[0-{gpus - 1}]\n"


def slurmdbd_conf(folder: Path, port: int, database_port: int) -> str:
    """slurmdbd.conf for the accounting daemon at `port`; the file must not be readable by others."""
    return f"""AuthType=auth/munge
AuthInfo=socket={munge_socket(folder)}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/pid/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={DATABASE_PASSWORD}
StorageLoc=slurm_acct
"""


def munge_socket(folder: Path) -> Path:
    return folder / "munge" / "socket"
