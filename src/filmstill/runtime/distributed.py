"""Ranks of a training job: rank and world size, collectives on Python values, and the mesh that shards networks.

One mesh [replicate, shard] describes each way to shard a network: "full" is 1 x world size, "hybrid" is nodes x ranks
per node, "none" is world size x 1. A single process has no process group, and the functions here then return their
argument. Draws, training and saved files do not depend on the world size, so nothing here is part of a stage's key.
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

REPLICATE, SHARD = "replicate", "shard"  # dimensions of the mesh
TIMEOUT = timedelta(minutes=30)  # of a collective: a slow node may take long to read 57 GB of weights

Value = TypeVar("Value")


@dataclass
class ShardingConfig:
    """How networks are placed on the job's ranks.

    device: "cuda" or "cpu". sharding: "none" (replicated on every rank), "hybrid" (sharded within a node, replicated
    across nodes) or "full" (sharded over all ranks). offload: keep frozen networks in host memory between passes.
    """

    device: str
    sharding: str
    offload: bool

    @cached_property
    def mesh(self) -> "DeviceMesh":
        """Device mesh of shape [replicate, shard]."""
        from torch.distributed.device_mesh import init_device_mesh

        shards = {"none": 1, "hybrid": int(os.environ["LOCAL_WORLD_SIZE"]), "full": world_size()}[self.sharding]
        return init_device_mesh(self.device, (world_size() // shards, shards), mesh_dim_names=(REPLICATE, SHARD))


_config: ShardingConfig | None = None  # global, like torch.distributed's default process group


def start(device: str, sharding: str, offload: bool) -> None:
    """Join the process group that torch's environment variables describe (RANK, WORLD_SIZE, LOCAL_RANK, …).

    Raises FilmstillError if `device` is "cuda" and this rank has no GPU.
    """
    global _config
    if device == "cuda":
        check_device(device, "compute.device")
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        require(local_rank < gpus, "tasks_per_node", os.environ.get("LOCAL_WORLD_SIZE"), f"at most {gpus}, one per GPU")
        torch.cuda.set_device(local_rank)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
        _config = ShardingConfig(device, sharding, offload)


def stop() -> None:
    """Leave the process group."""
    global _config
    if _config is not None:
        dist.destroy_process_group()
        _config = None


def sharding_config() -> ShardingConfig | None:
    """The configuration passed to `start`; None if the world size is 1."""
    return _config


def rank() -> int:
    """Rank of this process; 0 if the world size is 1."""
    return dist.get_rank() if _config is not None else 0


def world_size() -> int:
    """Number of ranks of the job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_rank0() -> bool:
    """Whether this is rank 0, which writes the files that a run writes once."""
    return rank() == 0


def barrier() -> None:
    """Wait for every rank. Collective: every rank must call it."""
    all_reduce_max(0)  # over gloo: the barrier of NCCL would occupy the GPU


def broadcast(value: Value) -> Value:
    """The value of rank 0, which must be picklable. Collective: every rank must call it."""
    if _config is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def all_reduce_sum(*numbers: float) -> list[float]:
    """Each number summed over all ranks, in float64. Collective: every rank must call it."""
    return _all_reduce(torch.tensor(numbers, dtype=torch.float64), dist.ReduceOp.SUM).tolist()


def all_reduce_max(number: int) -> int:
    """The largest number of any rank. Collective: every rank must call it."""
    return int(_all_reduce(torch.tensor([number]), dist.ReduceOp.MAX))


def all_gather(value: Value) -> list[Value]:
    """The value of every rank, by rank; it must be picklable. Collective: every rank must call it."""
    if _config is None:
        return [value]
    values: list[Value] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_gather_rows(rows: Tensor) -> Tensor:
    """The rows of every rank, by rank; each rank has as many. Collective: every rank must call it."""
    if _config is None:
        return rows
    gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, rows.contiguous())
    return gathered


def first_message(message: str | None) -> str | None:
    """The message of the lowest rank that has one; None if no rank has. Collective: every rank must call it."""
    return next(filter(None, all_gather(message)), None)


def _all_reduce(numbers: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if _config is not None:
        dist.all_reduce(numbers, operation)
    return numbers


def reduced_norm(tensors: list[Tensor]) -> Tensor:
    """Global 2-norm [] of gradients, after summing the replicated ones over all ranks in place.

    Sharded gradients must be summed already, as FSDP2 does in its reduce-scatter. Collective: every rank must call it.
    """
    if _config is None:
        return get_total_norm(tensors)
    replicated = [tensor for tensor in tensors if not _is_sharded(tensor)]
    norm = get_total_norm([local_tensor(tensor) for tensor in tensors if _is_sharded(tensor)]).square()
    dist.all_reduce(norm)
    norm /= _config.mesh[REPLICATE].size()  # each replica of a shard was counted
    if replicated:
        flat = torch.cat([tensor.flatten() for tensor in replicated])
        dist.all_reduce(flat)
        for tensor, summed in zip(replicated, flat.split([tensor.numel() for tensor in replicated]), strict=True):
            tensor.copy_(summed.view_as(tensor))
        norm += flat.square().sum()
    return norm.sqrt()


def local_tensor(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor, sharing its memory; an unsharded tensor is returned as it is."""
    return tensor.to_local() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered if it is sharded. Collective: every rank must call it."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def redistribute_like(replicated: Tensor, like: Tensor) -> Tensor:
    """Shard a tensor that is replicated on every rank in the way of `like`, which has the same shape."""
    if not _is_sharded(like):
        return replicated
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    tensor = DTensor.from_local(replicated, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return tensor.redistribute(placements=placements)


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # a DTensor, whose module is slow to import
