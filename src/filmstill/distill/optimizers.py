"""Learning-rate curve and the split of parameters between Muon and AdamW."""

from collections.abc import Iterable

from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from filmstill.distill.muon import Muon
from filmstill.runtime.distributed import whole


def warmup_then_decay(step: int, steps: int, warmup: int, decay_share: float) -> float:
    """Factor in (0, 1]: linear warm-up over `warmup` steps, linear decay to 0 over the last `decay_share`."""
    rising = (step + 1) / max(warmup, 1)
    falling = (steps - step) / max(decay_share * steps, 1)
    return min(1.0, rising, falling)


def muon_and_adamw(model: nn.Module, muon_lr: float, adamw_lr: float, weight_decay: float) -> dict[str, Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest.

    `weight_decay` is the matrices'; biases, norms, embeddings and the head have none.
    """
    matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return {"muon": Muon(matrices, muon_lr, weight_decay), "adamw": AdamW(others, lr=adamw_lr, weight_decay=0.0)}


def clip_gradients(model: nn.Module, most: float) -> float:
    """Scale the gradients down to a norm of at most `most`, over all processes; returns the norm they had."""
    return whole(clip_grad_norm_(model.parameters(), most)).item()


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Scale every group's first learning rate; the rate is a function of the step, never state."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
