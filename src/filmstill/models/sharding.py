"""Sharding of a network over a job's ranks with FSDP2, without changes to the network's code.

Each layer is one group: its parameters are all-gathered before it computes and freed afterwards. Gradients are summed
over ranks, not averaged, since each rank's loss is already divided by the size of the global batch. With precision
bfloat16, matrices are gathered in bfloat16, a backward pass computes their gradients in bfloat16, and the reduction
over ranks is in float32. The float32 norms and modulation of a layer, which are small, are then replicated on every
rank. The outputs of a sharded network equal those of a single process bit for bit.

Source: FSDP2 (torch.distributed.fsdp.fully_shard), after FSDP (arXiv:2304.11277).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from filmstill.models.dit import VideoDiT, is_exact
from filmstill.runtime import distributed

# The warning concerns in-place changes of such an output; nothing here makes any.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")


def shard(model: VideoDiT, device: str) -> VideoDiT:
    """Move the network to `device` and shard its parameters over the ranks in place; a single process only moves it."""
    config = distributed.sharding_config()
    if config is None:
        return model.to(device)
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    trained = any(p.requires_grad for p in model.parameters())
    offloaded = config.offload and not trained and config.device == "cuda"
    offload = CPUOffloadPolicy() if offloaded else OffloadPolicy()
    as_stored = MixedPrecisionPolicy(cast_forward_inputs=False)
    lower = MixedPrecisionPolicy(model.precision, torch.float32, cast_forward_inputs=False)
    replicated = _replicate(model, device) if trained and model.precision != torch.float32 else set()
    exact = (model.time_embedding, model.time_projection, model.head)
    # The whole network comes last, when every parameter is in a group already. A parameter in the root group would have
    # its gradient reduced as soon as the input of the root has its gradient, which the prompt gets before the patches.
    for module in (*model.layers, model.patch_embedding, model.text_embedding, *exact, model):
        policy = lower if replicated and module not in exact else as_stored
        fully_shard(module, mesh=config.mesh, mp_policy=policy, offload_policy=offload, ignored_params=replicated)
    for layer in model.layers:
        register_fsdp_forward_method(layer, "read")
        register_fsdp_forward_method(layer, "read_text")
    register_fsdp_forward_method(model, "read_text")
    register_fsdp_forward_method(model, "remember")
    for module in _groups(model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled reduction
    return model


def may_be_replicated(name: str) -> bool:
    """Whether a trained parameter is replicated on every rank if `precision` is below float32: it must stay float32,
    but belongs to a layer, whose group is gathered in `precision`."""
    return name.startswith("blocks.") and is_exact(name)


def _replicate(model: VideoDiT, device: str) -> set[nn.Parameter]:
    """Move the replicated parameters to the device and return them; `clip_gradients` all-reduces their gradients."""
    replicated = {p for name, p in model.named_parameters() if may_be_replicated(name)}
    for parameter in replicated:
        parameter.data = parameter.data.to(device)
    return replicated


@contextmanager
def gathered(model: VideoDiT) -> Iterator[None]:
    """Keep gathered parameters while the block runs, for a rollout's many passes; weights must not change in it."""
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
    """The modules that `fully_shard` was applied to; empty for a single process."""
    if distributed.sharding_config() is None:
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
