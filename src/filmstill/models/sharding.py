"""Spread a network over a job's processes with FSDP2, from outside: the network itself knows nothing of it.

Notable: a group a layer, gathered when it computes and let go of afterwards; gradients are summed, not averaged, since
every loss is already a share of the batch's; in bfloat16 matrices are gathered so, what a backward pass adds to their
gradients is bfloat16 and the sum over processes float32, and a layer's norms and modulation, small and exact, stay
whole on every process, so that a spread network answers to the bit as it does alone; a rollout gathers its own once.

Source: FSDP2 (torch.distributed.fsdp.fully_shard), after FSDP (arXiv:2304.11277).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from filmstill.models.dit import VideoDiT, is_exact
from filmstill.runtime import distributed

# It would matter to whoever changes such an output in place; nothing here does.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")


def shard(model: VideoDiT, device: str) -> VideoDiT:
    """The network on its device, its parameters spread over the processes in place; a process alone keeps it whole."""
    spread = distributed.sharding_config()
    if spread is None:
        return model.to(device)
    from torch.distributed.fsdp import (
        CPUOffloadPolicy,
        MixedPrecisionPolicy,
        OffloadPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    trained = any(p.requires_grad for p in model.parameters())
    waits = spread.offload and not trained and spread.device == "cuda"  # on a CPU it waits there as it is
    offload = CPUOffloadPolicy() if waits else OffloadPolicy()
    as_kept = MixedPrecisionPolicy(cast_forward_inputs=False)
    lower = MixedPrecisionPolicy(model.precision, torch.float32, cast_forward_inputs=False)
    kept_whole = _keep_whole(model, device) if trained and model.precision != torch.float32 else set()
    exact = (model.time_embedding, model.time_projection, model.head)
    # The network as a whole comes last, and every parameter has a group by then: one of its own would sum gradients
    # when its input has its own, and a prompt has it before the patches have theirs.
    for module in (*model.layers, model.patch_embedding, model.text_embedding, *exact, model):
        policy = lower if kept_whole and module not in exact else as_kept
        fully_shard(module, mesh=spread.mesh, mp_policy=policy, offload_policy=offload, ignored_params=kept_whole)
    for layer in model.layers:
        register_fsdp_forward_method(layer, "read")
        register_fsdp_forward_method(layer, "read_text")
    register_fsdp_forward_method(model, "read_text")
    register_fsdp_forward_method(model, "remember")
    for module in _groups(model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale
    return model


def may_be_whole(name: str) -> bool:
    """Whether a parameter in training lies whole on every process where `precision` is below float32: it is exact, and
    in a layer's group, which is gathered in `precision`."""
    return name.startswith("blocks.") and is_exact(name)


def _keep_whole(model: VideoDiT, device: str) -> set[nn.Parameter]:
    """Put what is not to be spread on the device; `clip_gradients` sums its gradients."""
    kept = {p for name, p in model.named_parameters() if may_be_whole(name)}
    for parameter in kept:
        parameter.data = parameter.data.to(device)
    return kept


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
    if distributed.sharding_config() is None:
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
