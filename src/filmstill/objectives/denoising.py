"""Losses of denoisers: what a prediction is compared with, for each of the four parametrisations.

Every tensor is [B, F, C, H, W] or [N, C, H, W]; every loss is the mean over all elements.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """The random numbers of one loss: uniform times u [B] and noise [B, F, C, H, W]."""

    u: Tensor
    noise: Tensor


def x0_loss(x0: Tensor, x0_pred: Tensor) -> Tensor:
    return torch.mean((x0 - x0_pred) ** 2)


def noise_loss(noise: Tensor, noise_pred: Tensor) -> Tensor:
    return torch.mean((noise - noise_pred) ** 2)


def flow_loss(x0: Tensor, noise: Tensor, velocity_pred: Tensor) -> Tensor:
    """Flow matching (arXiv:2210.02747): velocity = noise - x0."""
    return torch.mean((velocity_pred - (noise - x0)) ** 2)


def v_loss(x0: Tensor, x0_pred: Tensor, alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """x0 error weighted by 1 / (1 - alpha_bar): the v-parametrisation (arXiv:2202.00512, appendix D)."""
    weight = 1 / (1 - alphas_cumprod[timestep])
    return torch.mean(weight.reshape(-1, *[1] * (x0.ndim - 1)) * (x0 - x0_pred) ** 2)
