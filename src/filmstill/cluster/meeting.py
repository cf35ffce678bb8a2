"""Where the processes of a job meet: submitit's environment for torch.distributed, with a port that stays free.

Notable: submitit's own port lies among those that Linux lends to outgoing connections, so that on a busy node it may be
taken when the first process wants to listen; and two jobs on one node may draw the same, which ids in a row cannot.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitit.helpers import TorchDistributedEnvironment

PORTS = range(24000, 32768)  # below those that Linux lends by default (ip_local_port_range)


def meet() -> "TorchDistributedEnvironment":
    """Export RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT; one that `setup` sets stays.

    All of a node's GPUs stay visible, as SLURM numbers them: LOCAL_RANK tells which one is this process's.
    """
    from submitit.helpers import TorchDistributedEnvironment

    os.environ.setdefault("MASTER_PORT", str(port(os.environ["SLURM_JOB_ID"])))
    return TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def port(job_id: str) -> int:
    """A job's: the same for two jobs only where a multiple of len(PORTS) lies between their ids."""
    return PORTS[int(job_id) % len(PORTS)]
