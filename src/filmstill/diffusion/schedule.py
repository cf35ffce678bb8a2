"""Flow-matching schedule: x_t = (1 - sigma)*x0 + sigma*noise, velocity = noise - x0 (arXiv:2210.02747).

Sigma is a closed form in float64, not a table, so sigma(0) is exactly 0. Timesteps are 1000*sigma. One schedule is used
by teacher, ODE pairs, student and losses.

Source: `FlowMatchScheduler` of the released Self Forcing code (arXiv:2506.08009); the shift is that of Stable Diffusion
3 (arXiv:2403.03206, eq. 23).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TIMESTEPS = 1000.0  # timestep of sigma 1


@dataclass(frozen=True)
class FlowSchedule:
    """shift: at least 1; a larger shift puts more sampling steps at high noise."""

    shift: float

    def warp(self, u: Tensor) -> Tensor:
        """Sigma, float64, of uniform times u in [0, 1]: shift*u / (1 + (shift - 1)*u) (arXiv:2403.03206, eq. 23)."""
        u = u.double()
        return self.shift * u / (1 + (self.shift - 1) * u)

    def nodes(self, steps: int) -> Tensor:
        """Sigmas [steps] of a sampler, float64, at u = 1, 1 - 1/steps, …, 1/steps, without the final sigma 0."""
        return self.warp(1 - torch.arange(steps, dtype=torch.float64) / steps)


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_t = (1 - sigma)*x0 + sigma*noise for x0 and noise [B, F, C, H, W], sigma [B] or [B, F]."""
    s = _broadcast(sigma, x0)
    return ((1 - s) * x0 + s * noise).to(x0.dtype)


def velocity_to_x0(velocity: Tensor, xt: Tensor, sigma: Tensor) -> Tensor:
    """x0 = x_t - sigma*velocity for x_t and velocity [B, F, C, H, W], sigma [B] or [B, F]."""
    return (xt - _broadcast(sigma, xt) * velocity).to(xt.dtype)


def x0_to_velocity(x0: Tensor, xt: Tensor, sigma: Tensor) -> Tensor:
    """velocity = (x_t - x0) / sigma for x0 and x_t [B, F, C, H, W], sigma [B] or [B, F] without zeros."""
    return ((xt - x0) / _broadcast(sigma, xt)).to(xt.dtype)


def euler_step(xt: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """Euler step of the probability-flow ODE for x_t [B, F, C, H, W], from sigma to next_sigma, [B] or [B, F] each."""
    return (xt + _broadcast(next_sigma - sigma, xt) * velocity).to(xt.dtype)


def _broadcast(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma [B] or [B, F] as float64 on the device of x [B, F, C, H, W], with dimensions appended to match x."""
    return sigma.double().to(x.device).reshape(*sigma.shape, *[1] * (x.ndim - sigma.ndim))
