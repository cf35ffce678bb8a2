"""The processes of one training job: who this one is, what all agree on, and the mesh that networks are spread over.

Notable: one mesh, replicate x shard, says every way to spread a network: `full` is 1 x processes, `hybrid` nodes x
processes a node, `none` processes x 1; a process alone has no group and pays nothing; what is drawn, trained and saved
is the same on any number of processes, so nothing here is part of a stage's key.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm

from filmstill.errors import require
from filmstill.runtime.compute import check_device

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

REPLICATE, SHARD = "replicate", "shard"  # the mesh's dimensions
TIMEOUT = timedelta(minutes=30)  # with a process that is late: its node reads 57 GB of weights more slowly

Value = TypeVar("Value")


@dataclass
class ShardingConfig:
    """How networks lie on this job's processes. sharding: none, hybrid (whole on every node) or full.
    offload: frozen networks wait in the host's memory."""

    device: str
    sharding: str
    offload: bool

    @cached_property
    def mesh(self) -> "DeviceMesh":
        """[replicate, shard]."""
        from torch.distributed.device_mesh import init_device_mesh

        together = {"none": 1, "hybrid": int(os.environ["LOCAL_WORLD_SIZE"]), "full": world_size()}[self.sharding]
        return init_device_mesh(self.device, (world_size() // together, together), mesh_dim_names=(REPLICATE, SHARD))


_config: ShardingConfig | None = None  # one a process, as torch.distributed's own group


def start(device: str, sharding: str, offload: bool) -> None:
    """Join the job's processes, told by torch's environment variables (RANK, WORLD_SIZE, LOCAL_RANK, …)."""
    global _config
    if device == "cuda":
        check_device(device, "compute.device")
        own, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        require(own < there, "tasks_per_node", os.environ.get("LOCAL_WORLD_SIZE"), f"at most {there}, one a GPU")
        torch.cuda.set_device(own)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
        _config = ShardingConfig(device, sharding, offload)


def stop() -> None:
    """Leave the job's processes."""
    global _config
    if _config is not None:
        dist.destroy_process_group()
        _config = None


def sharding_config() -> ShardingConfig | None:
    """How networks are to lie on the processes; None for a process alone."""
    return _config


def rank() -> int:
    return dist.get_rank() if _config is not None else 0


def world_size() -> int:
    """Processes of the job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_rank0() -> bool:
    """Whether this process is the one that writes what a run makes once."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process."""
    all_reduce_max(0)  # over gloo: nccl's barrier would hold a GPU


def broadcast(value: Value) -> Value:
    """The first process's value, on every process."""
    if _config is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def all_reduce_sum(*shares: float) -> list[float]:
    """Each number summed over the processes."""
    return _reduced(torch.tensor(shares, dtype=torch.float64), dist.ReduceOp.SUM).tolist()


def all_reduce_max(number: int) -> int:
    """The largest of the processes' numbers."""
    return int(_reduced(torch.tensor([number]), dist.ReduceOp.MAX))


def first_message(words: str | None) -> str | None:
    """What the lowest process that says anything says."""
    if _config is None:
        return words
    said: list[str | None] = [None] * world_size()
    dist.all_gather_object(said, words)
    return next(filter(None, said), None)


def _reduced(numbers: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    if _config is not None:
        dist.all_reduce(numbers, how)
    return numbers


def reduced_norm(tensors: list[Tensor]) -> Tensor:
    """The norm of all of them together, []; those that lie whole on every process are first summed over them, in place.

    What is spread is taken to be summed already: FSDP2 does it as it scatters gradients.
    """
    if _config is None:
        return get_total_norm(tensors)
    everywhere = [tensor for tensor in tensors if not _is_sharded(tensor)]
    norm = get_total_norm([local_tensor(tensor) for tensor in tensors if _is_sharded(tensor)]).square()
    dist.all_reduce(norm)
    norm /= _config.mesh[REPLICATE].size()
    if everywhere:
        flat = torch.cat([tensor.flatten() for tensor in everywhere])
        dist.all_reduce(flat)
        for tensor, summed in zip(everywhere, flat.split([tensor.numel() for tensor in everywhere]), strict=True):
            tensor.copy_(summed.view_as(tensor))
        norm += flat.square().sum()
    return norm.sqrt()


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, which shares its memory; an unspread tensor is all there."""
    return tensor.to_local() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor; every process must ask for it."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def redistribute_like(everything: Tensor, spread: Tensor) -> Tensor:
    """A tensor that every process has, laid out as another one of its shape is."""
    if not _is_sharded(spread):
        return everything
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = spread.device_mesh, spread.placements  # type: ignore[attr-defined]
    there = DTensor.from_local(everything, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return there.redistribute(placements=placements)


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # DTensor: the module that defines it takes its time to import
