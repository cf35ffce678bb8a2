"""The flow-matching schedule: x_t = (1 - sigma)*x0 + sigma*noise, velocity = noise - x0.

Notable: closed form in float64, no table to look up, so sigma(0) is 0 exactly; timesteps are 1000*sigma;
one schedule a pipeline (the teacher's, the pairs', the student's and the losses').

Source: Wan2.1's `FlowMatchScheduler`; the shift is that of Stable Diffusion 3 (arXiv:2403.03206, eq. 23).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TIMESTEPS = 1000.0


@dataclass(frozen=True)
class FlowSchedule:
    """`shift` >= 1 moves the steps towards noise."""

    shift: float

    def warp(self, u: Tensor) -> Tensor:
        """Uniform time u in [0, 1] to sigma, float64."""
        u = u.double()
        return self.shift * u / (1 + (self.shift - 1) * u)

    def nodes(self, steps: int) -> Tensor:
        """Sigmas [steps] a sampler of `steps` steps stands at: u = 1, 1 - 1/steps, …; then comes 0."""
        return self.warp(1 - torch.arange(steps, dtype=torch.float64) / steps)


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_t of x0 [B, F, C, H, W] at sigma [B] or [B, F]."""
    s = _over(sigma, x0)
    return ((1 - s) * x0 + s * noise).to(x0.dtype)


def velocity_to_x0(velocity: Tensor, xt: Tensor, sigma: Tensor) -> Tensor:
    """x0 = x_t - sigma*velocity."""
    return (xt - _over(sigma, xt) * velocity).to(xt.dtype)


def x0_to_velocity(x0: Tensor, xt: Tensor, sigma: Tensor) -> Tensor:
    """velocity = (x_t - x0) / sigma; sigma must not be 0."""
    return ((xt - x0) / _over(sigma, xt)).to(xt.dtype)


def euler_step(xt: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """One step of the probability-flow ODE from sigma to next_sigma, each sample by its own."""
    return (xt + _over(next_sigma - sigma, xt) * velocity).to(xt.dtype)


def _over(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma [B] or [B, F] as float64, shaped to multiply x [B, F, C, H, W]."""
    return sigma.double().to(x.device).reshape(*sigma.shape, *[1] * (x.ndim - sigma.ndim))
