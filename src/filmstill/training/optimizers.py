"""Learning-rate schedule, gradient clipping, and the assignment of parameters to Muon and AdamW."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from filmstill.models.sharding import may_be_replicated
from filmstill.runtime import distributed
from filmstill.training.muon import Muon

BETAS = (0.9, 0.999)  # of the AdamW beside Muon


def warmup_then_decay(step: int, steps: int, warmup: int, lr_decay_fraction: float) -> float:
    """Factor in (0, 1]: linear warm-up over `warmup` steps, linear decay to 0 over the last `lr_decay_fraction`."""
    rising = (step + 1) / max(warmup, 1)
    falling = (steps - step) / max(lr_decay_fraction * steps, 1)
    return min(1.0, rising, falling)


def adamw(named: Iterable[tuple[str, nn.Parameter]], lr: float, betas: tuple[float, float], decay: float) -> AdamW:
    """AdamW with two groups: parameters that are sharded over ranks, and those that may be replicated.

    On a GPU one group cannot contain both. The groups are the same for every world size, since checkpoints number
    parameters in the order of the groups.
    """
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in named:
        groups[may_be_replicated(name)].append(parameter)
    not_empty = [{"params": parameters} for parameters in groups.values() if parameters]
    return AdamW(not_empty, lr=lr, betas=betas, weight_decay=decay)


def muon_and_adamw(model: nn.Module, muon_lr: float, adamw_lr: float, weight_decay: float) -> dict[str, Optimizer]:
    """Muon for the blocks' matrices, AdamW for all other parameters.

    Only the matrices have `weight_decay`; biases, norms, embeddings and the head have none.
    """
    named = list(model.named_parameters())
    matrices = {name for name, p in named if name.startswith("blocks.") and p.ndim == 2}
    others = [(name, p) for name, p in named if name not in matrices]
    muon = Muon([p for name, p in named if name in matrices], muon_lr, weight_decay)
    return {"muon": muon, "adamw": adamw(others, adamw_lr, BETAS, 0.0)}


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale gradients to a norm, over all ranks, of at most `max_norm`; return the norm before. Collective."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = distributed.reduced_norm(gradients)
    local = [distributed.local_tensor(gradient) for gradient in gradients]
    torch._foreach_mul_(local, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm.item()


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its initial one: a function of the step, not state."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
