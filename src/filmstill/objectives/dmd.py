"""Distribution matching distillation (DMD): the generator follows the teacher's score minus the critic's score.

The teacher (real score) is frozen; the critic (fake score) is trained on the generator's clips. Guidance is
`uncond + w*(cond - uncond)`; `real_guidance_scale: 3` in the released Self Forcing code is w = 4 here.

Source: DMD (arXiv:2311.18828, eqs. 7-8), DMD2 (arXiv:2405.14867), as Self Forcing uses them (arXiv:2506.08009).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.diffusion.sample import guided
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.dit import VideoDiT
from filmstill.models.experts import Denoiser
from filmstill.objectives.denoising import Draw, flow_loss
from filmstill.runtime.stopwatch import part

SIGMA_RANGE = (0.02, 0.98)  # noise levels at which scores are compared and the critic is trained


def dmd_gradient(x0: Tensor, fake_x0: Tensor, real_x0: Tensor, normalise: bool = True) -> Tensor:
    """Gradient of the KL divergence in generated x0: fake_x0 - real_x0 (DMD, eq. 7), all [B, F, C, H, W].

    normalise: divide each sample by the mean of |x0 - real_x0| over its elements (DMD, eq. 8).
    """
    gradient = fake_x0 - real_x0
    if normalise:
        gradient = gradient / (x0 - real_x0).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    return torch.nan_to_num(gradient)


def dmd_loss(x0: Tensor, gradient: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scalar, float64, whose gradient in x0 [B, F, C, H, W] is `gradient` / number of elements.

    mask: boolean [B, F, C, H, W]; only its True elements count.
    """
    target = (x0.double() - gradient.double()).detach()
    x0 = x0.double()
    if mask is not None:
        x0, target = x0[mask], target[mask]
    return 0.5 * F.mse_loss(x0, target)


@dataclass(frozen=True)
class Objective:
    """The DMD losses of a frozen teacher (real score) and a trained critic (fake score)."""

    teacher: Denoiser
    critic: VideoDiT
    schedule: FlowSchedule
    guidance_scale: float
    no_text: Tensor  # token vectors of the negative prompt, [1, text_len, text_dim]

    def generator_loss(self, video: Tensor, text: Tensor, draw: Draw, counted: Tensor) -> Tensor:
        """Scalar loss of generated latents `video` [B, F, C, H, W], which carry the generator's graph.

        text: token vectors of the prompts, [B, text_len, text_dim]. counted: the frames that the loss is on, bool [F].
        """
        sigma = self._sigma(draw.u)
        with torch.no_grad():
            noisy = add_noise(video, draw.noise, sigma)
            with part("teacher"):
                real_velocity = guided(self.teacher, text, self.no_text, self.guidance_scale)(noisy, sigma)
            with part("critic"):
                fake_velocity = self.critic(noisy, sigma * TIMESTEPS, self.critic.read_text(text))
            fake_x0 = velocity_to_x0(fake_velocity, noisy, sigma)
            real_x0 = velocity_to_x0(real_velocity, noisy, sigma)
            gradient = dmd_gradient(video, fake_x0, real_x0)
        return dmd_loss(video, gradient, counted[:, None, None, None].expand_as(video))

    def critic_loss(self, video: Tensor, text: Tensor, draw: Draw, counted: Tensor) -> Tensor:
        """Flow matching loss of the critic on generated latents `video` [B, F, C, H, W], which carry no graph.

        counted: the frames that the loss is on, bool [F], those of the generator's loss.
        """
        sigma = self._sigma(draw.u)
        velocity = self.critic(add_noise(video, draw.noise, sigma), sigma * TIMESTEPS, self.critic.read_text(text))
        return flow_loss(video[:, counted], draw.noise[:, counted], velocity[:, counted])

    def _sigma(self, u: Tensor) -> Tensor:
        """Sigma [B] of uniform times u [B]: warped by the schedule, then clamped."""
        return self.schedule.warp(u).clamp(*SIGMA_RANGE)
