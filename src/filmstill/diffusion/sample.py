"""The teacher's sampler: Euler steps of the probability-flow ODE with classifier-free guidance (arXiv:2207.12598)."""

from collections.abc import Callable

import torch
from torch import Tensor

from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, euler_step
from filmstill.models.experts import Denoiser

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, F, C, H, W], sigma [B]) -> velocity [B, F, C, H, W]


def guided(model: Denoiser, text: Tensor, no_text: Tensor, weight: float) -> Velocity:
    """The guided velocity uncond + weight*(cond - uncond), with both branches in one batch (arXiv:2207.12598).

    Weight 1 is no guidance: only the conditional branch is computed.

    text: token vectors [B, text_len, text_dim]; no_text: those of the negative prompt, [1 or B, text_len, text_dim].
    weight: guidance scale. The paper writes its eq. 6 with w = weight - 1.
    """
    if weight == 1:
        only = model.read_text(text)
        return lambda xt, sigma: model(xt, sigma * TIMESTEPS, only)
    both = model.read_text(torch.cat([text, no_text.expand_as(text)]))

    def velocity(xt: Tensor, sigma: Tensor) -> Tensor:
        t = (sigma * TIMESTEPS).repeat(2)
        conditional, unconditional = model(xt.repeat(2, 1, 1, 1, 1), t, both).chunk(2)
        return unconditional + weight * (conditional - unconditional)

    return velocity


@torch.no_grad()
def sample(velocity: Velocity, noise: Tensor, schedule: FlowSchedule, steps: int, keep: list[int]) -> Tensor:
    """Integrate from noise [B, F, C, H, W] to x0 in `steps` sampling steps.

    Returns the latents before each step in `keep`, then x0: [B, len(keep) + 1, F, C, H, W].
    """
    sigmas = torch.cat([schedule.nodes(steps), torch.zeros(1, dtype=torch.float64)])
    xt, kept = noise, []
    for step in range(steps):
        if step in keep:
            kept.append(xt)
        sigma, following = (s.expand(len(xt)) for s in sigmas[step : step + 2])
        xt = euler_step(xt, velocity(xt, sigma), sigma, following)
    return torch.stack([*kept, xt], dim=1)
