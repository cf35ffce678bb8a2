"""Regression losses of denoisers, one per parametrisation: x0, noise, velocity (flow matching) and v.

Tensors are [B, F, C, H, W] or [N, C, H, W]. Each loss is the mean over all elements, a scalar [].
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """Random numbers of one loss: uniform times u [B] in [0, 1) and standard normal noise [B, F, C, H, W]."""

    u: Tensor
    noise: Tensor


def x0_loss(x0: Tensor, x0_pred: Tensor) -> Tensor:
    """Mean squared error of predicted x0."""
    return torch.mean((x0 - x0_pred) ** 2)


def noise_loss(noise: Tensor, noise_pred: Tensor) -> Tensor:
    """Mean squared error of predicted noise."""
    return torch.mean((noise - noise_pred) ** 2)


def velocity_loss(velocity: Tensor, velocity_pred: Tensor) -> Tensor:
    """Mean squared error of predicted velocity: that of x0 over sigma**2, which gives little noise more weight."""
    return torch.mean((velocity_pred - velocity) ** 2)


def flow_loss(x0: Tensor, noise: Tensor, velocity_pred: Tensor) -> Tensor:
    """Flow matching (arXiv:2210.02747): mean squared error of predicted velocity, whose target is noise - x0."""
    return velocity_loss(noise - x0, velocity_pred)


def v_loss(x0: Tensor, x0_pred: Tensor, alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """v-prediction (arXiv:2202.00512, section 4, SNR + 1 weighting): error of predicted x0 times 1 / (1 - alpha_bar).

    alphas_cumprod: alpha_bar by timestep, [T]; timestep: indices into it, [B] or [N].
    """
    weight = 1 / (1 - alphas_cumprod[timestep])
    return torch.mean(weight.reshape(-1, *[1] * (x0.ndim - 1)) * (x0 - x0_pred) ** 2)
