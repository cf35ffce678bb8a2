"""Spread a network over a job's processes with FSDP2, from outside: the network itself knows nothing of it.

Notable: a group a layer, gathered when it computes and let go of afterwards; gradients are summed, not averaged, since
every loss is already a share of the batch's; where matrices are bfloat16 what a timestep becomes and the velocity stay
float32, and gradients are summed in float32; a rollout gathers its network once.

Source: FSDP2 (torch.distributed.fsdp.fully_shard), after FSDP (arXiv:2304.11277).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from filmstill.models.dit import VideoDiT
from filmstill.runtime import distributed

# It would matter to whoever changes such an output in place; nothing here does.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")


def shard(model: VideoDiT) -> VideoDiT:
    """The network, its parameters spread over the processes in place; a process alone keeps it whole."""
    spread = distributed.spread()
    if spread is None:
        return model
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    trained = any(p.requires_grad for p in model.parameters())
    reduced = trained and model.precision != torch.float32
    mixed = MixedPrecisionPolicy(model.precision, torch.float32, cast_forward_inputs=False)
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    waits = spread.offload and not trained and spread.device == "cuda"  # on a CPU it waits there as it is
    offload = CPUOffloadPolicy() if waits else OffloadPolicy()

    def group(module: nn.Module, policy: MixedPrecisionPolicy) -> None:
        fully_shard(module, mesh=spread.mesh, mp_policy=policy, offload_policy=offload)

    for layer in model.layers:
        group(layer, mixed if reduced else exact)
        for method in ("read", "read_text"):
            register_fsdp_forward_method(layer, method)
    group(model.patch_embedding, mixed if reduced else exact)
    group(model.text_embedding, mixed if reduced else exact)
    group(model.time_embedding, exact)
    group(model.time_projection, exact)
    group(model.head, exact)
    # Every parameter has a group by now. A group of the network as a whole would sum its gradients when its input has
    # its own, and a prompt has it before the patches have theirs.
    group(model, exact)
    for method in ("read_text", "remember"):
        register_fsdp_forward_method(model, method)
    for module in _groups(model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale
    return model


@contextmanager
def gathered(model: VideoDiT) -> Iterator[None]:
    """While the block runs, what is gathered stays: for the many passes of a rollout. Its weights must not change."""
    groups = _groups(model)
    for module in groups:
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in groups:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def _groups(model: VideoDiT) -> list:
    """The modules that FSDP2 has taken in hand; none in a process alone."""
    if distributed.spread() is None:
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
