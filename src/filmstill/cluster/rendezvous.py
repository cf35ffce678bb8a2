"""Rendezvous of a job's ranks: the environment variables of torch.distributed, with a port that no other job uses.

submitit chooses a random port among those that Linux uses for outgoing connections: on a busy node it may be taken
when rank 0 wants to listen, and two jobs on one node may draw the same one. Here the port follows from the job's id.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitit.helpers import TorchDistributedEnvironment

PORTS = range(24000, 32768)  # below Linux's default range for outgoing connections (ip_local_port_range)


def rendezvous() -> "TorchDistributedEnvironment":
    """Export RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    A MASTER_PORT that `setup` of cluster.yaml exports is kept. All of a node's GPUs stay visible to every rank, as
    SLURM numbers them; LOCAL_RANK selects the rank's own.
    """
    from submitit.helpers import TorchDistributedEnvironment

    os.environ.setdefault("MASTER_PORT", str(port(os.environ["SLURM_JOB_ID"])))
    return TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def port(job_id: str) -> int:
    """The port of a job. Two jobs share one only where their ids differ by a multiple of len(PORTS)."""
    return PORTS[int(job_id) % len(PORTS)]
