"""What a throw-away SLURM cluster reads: slurm.conf, gres.conf and slurmdbd.conf, as text.

Notable: several slurmd on one host, a port each; pretended H100s are character devices; a partition for each thing that
can go wrong (`low` is preempted by `high`, `short` has a small time limit, the only node of `far` is another host).
"""

import os
from pathlib import Path

from filmstill.errors import FilmstillError

DATABASE_PASSWORD = "slurm"  # of a database that listens on 127.0.0.1 alone and lives as long as the cluster
SOCKET = 107  # letters of a Unix socket's path
GRACE_SECONDS = 20  # from a preemption's signal to its kill
KILL_SECONDS = 2  # from TERM to KILL where a job is cancelled


def refuse_long(folder: Path, nodes: list[str]) -> None:
    """Raises FilmstillError where SLURM could not name its sockets, and would only say `launch failed`."""
    longest = max(len(f"{folder}/spool/{name}/{name}_{10**9}.{10**9}") for name in nodes)  # of a job's step
    if longest > SOCKET:
        raise FilmstillError(
            f"{folder}: is {len(str(folder))} letters long, allowed: {len(str(folder)) - longest + SOCKET}; set TMPDIR"
        )


def slurm_conf(folder: Path, nodes: list[str], each: str, port: int, accounting: bool) -> str:
    """slurm.conf of a cluster in `folder` whose nodes each have `each` (CPUs=… RealMemory=… Gres=…).

    Ports: slurmctld's is `port`, the nodes' follow, then slurmdbd's. FirstJobId: of several clusters on this machine no
    two have a job of one number, which gives the port where a job's processes meet; MinJobAge: what tests count is not
    forgotten meanwhile; cred_expire: so long does a requeued job wait, and less than 5 s is silently refused;
    DefMemPerCPU: or a job takes all of a node's memory; preempt_send_user_signal: a preempted job gets the signal that
    it asked for; SlurmdTimeout, MessageTimeout: a silent node is down after 13 s.
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
    """gres.conf: SLURM hands out CUDA_VISIBLE_DEVICES for character devices only."""
    return f"NodeName={','.join(nodes)} Name=gpu Type=h100 File={folder}/dev/gpu[0-{gpus - 1}]\n"


def slurmdbd_conf(folder: Path, port: int, database_port: int) -> str:
    """slurmdbd.conf for the accounting daemon at `port`; it must not be readable by others."""
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
