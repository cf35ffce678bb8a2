"""Muon: momentum orthogonalised by a Newton-Schulz iteration, for the matrices of a network's layers.

The iteration runs in float32. torch.optim.Muon's runs in bfloat16, where the last bit of a gradient, which depends on
the world size, grows to a thousandth of the update. Matrices of one shape are iterated as a batch. A sharded matrix is
gathered for the iteration; its momentum stays sharded.

Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scaling to AdamW's update size: arXiv:2502.16982.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from filmstill.runtime.distributed import full_tensor, redistribute_like

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan's quintic, chosen for a steep slope at zero
ITERATIONS = 5
ADAMW_RMS = 0.2  # typical root mean square of AdamW's updates


class Muon(Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for shape, matrices in by_shape.items():
                updates = orthogonal(torch.stack([full_tensor(self._momentum(p)) for p in matrices]))
                size = group["lr"] * ADAMW_RMS * max(shape) ** 0.5  # an orthogonal matrix has RMS max(shape) ** -0.5
                for p, update in zip(matrices, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(redistribute_like(update, p), alpha=-size)

    def _momentum(self, p: nn.Parameter) -> Tensor:
        """Update a parameter's momentum by its gradient; returns Nesterov's look-ahead."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        assert p.grad is not None
        return p.grad.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices [N, rows, columns] near 1 (0.7 to 1.2) by Newton-Schulz iterations."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
