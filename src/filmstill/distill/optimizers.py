"""Learning-rate curve and the split of parameters between Muon and AdamW."""

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


def warmup_then_decay(step: int, steps: int, warmup: int, decay_share: float) -> float:
    """Factor in (0, 1]: linear warm-up over `warmup` steps, linear decay to 0 over the last `decay_share`."""
    rising = (step + 1) / max(warmup, 1)
    falling = (steps - step) / max(decay_share * steps, 1)
    return min(1.0, rising, falling)


def muon_and_adamw(model: nn.Module, muon_lr: float, adamw_lr: float, weight_decay: float) -> dict[str, Optimizer]:
    """Muon (Jordan 2024; steps of AdamW's size, arXiv:2502.16982) for the blocks' matrices, AdamW for the rest.

    `weight_decay` is the matrices'; biases, norms, embeddings and the head have none.
    """
    matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = Muon(matrices, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return {"muon": muon, "adamw": AdamW(others, lr=adamw_lr, weight_decay=0.0)}


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Scale every group's first learning rate; the rate is a function of the step, never state."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
