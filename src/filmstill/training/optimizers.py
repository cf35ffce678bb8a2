"""Learning-rate curve and the split of parameters between Muon and AdamW."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from filmstill.models.sharding import may_be_whole
from filmstill.runtime import distributed
from filmstill.training.muon import Muon

BETAS = (0.9, 0.999)  # AdamW's, where none are asked for


def warmup_then_decay(step: int, steps: int, warmup: int, lr_decay_fraction: float) -> float:
    """Factor in (0, 1]: linear warm-up over `warmup` steps, linear decay to 0 over the last `lr_decay_fraction`."""
    rising = (step + 1) / max(warmup, 1)
    falling = (steps - step) / max(lr_decay_fraction * steps, 1)
    return min(1.0, rising, falling)


def adamw(named: Iterable[tuple[str, nn.Parameter]], lr: float, betas: tuple[float, float], decay: float) -> AdamW:
    """AdamW of a network's parameters by name, in two groups: what is spread over processes, and what may be whole.

    One group cannot hold both on a GPU. The groups are the same on any number of processes, as checkpoints need it.
    """
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in named:
        groups[may_be_whole(name)].append(parameter)
    alike = [{"params": parameters} for parameters in groups.values() if parameters]
    return AdamW(alike, lr=lr, betas=betas, weight_decay=decay)


def muon_and_adamw(model: nn.Module, muon_lr: float, adamw_lr: float, weight_decay: float) -> dict[str, Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest.

    `weight_decay` is the matrices'; biases, norms, embeddings and the head have none.
    """
    named = list(model.named_parameters())
    matrices = {name for name, p in named if name.startswith("blocks.") and p.ndim == 2}
    others = [(name, p) for name, p in named if name not in matrices]
    muon = Muon([p for name, p in named if name in matrices], muon_lr, weight_decay)
    return {"muon": muon, "adamw": adamw(others, adamw_lr, BETAS, 0.0)}


def clip_gradients(model: nn.Module, most: float) -> float:
    """Scale the gradients down to a norm of at most `most`, over all processes; returns the norm they had."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = distributed.reduced_norm(gradients)
    local = [distributed.local_tensor(gradient) for gradient in gradients]
    torch._foreach_mul_(local, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm.item()


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Scale every group's first learning rate; the rate is a function of the step, never state."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
