"""The causal few-step rollout: the one function that trains the student and serves it.

For each block of frames: start from noise, denoise through the schedule's nodes, re-noising between them,
emit x0, and run once more at the context noise level to put the block into the cache.

Training passes `exit_step`: the denoising stops there with a gradient and that prediction is the block
(Self Forcing, arXiv:2506.08009, algorithm 1). Whatever enters the cache is detached.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import TextKV, VideoDiT
from filmstill.models.kv_cache import KVCache
from filmstill.params.student import Student


@dataclass(frozen=True)
class RolloutConfig:
    """How a student unrolls: the sigmas it stands at, its attention, and the sigma of finished context."""

    sigmas: tuple[float, ...]
    attention: BlockCausal
    context_sigma: float = 0.0

    @classmethod
    def of(cls, schedule: FlowSchedule, student: Student) -> "RolloutConfig":
        """The rollout that the section `student` of params.yaml describes."""
        sigmas = tuple(schedule.nodes(student.denoising_steps).tolist())
        return cls(sigmas, BlockCausal.of(student), student.context_noise)

    @property
    def noises(self) -> int:
        """How many noises a frame needs: one a step, and one for a context that is not clean."""
        return len(self.sigmas) + (self.context_sigma > 0)

    def evaluations(self, frames: int) -> float:
        """Network evaluations a clip of `frames`, in passes over the whole clip's frames (context passes counted)."""
        blocks = self.attention.blocks(frames)
        context = sum(end - start for start, end in blocks[:-1])
        return len(self.sigmas) + context / frames


def rollout(
    model: VideoDiT, text: TextKV, noise: Tensor, config: RolloutConfig, exit_step: int | None = None
) -> Iterator[Tensor]:
    """Yield the x0 of each block, [B, block frames, C, H, W]; the consumer must not write into it: it becomes context.

    noise [B, config.noises, F, C, H, W]: noise[:, s] is what denoising step s starts from or is re-noised with (the
    rollout itself draws nothing); a last one is for the context, where its noise level is not 0.
    exit_step: index of the step whose prediction is emitted, with a gradient where grad mode is on; None: the last.
    """
    frames = noise.shape[2]
    blocks = config.attention.blocks(frames)
    kept = blocks[-1][0]  # the last block is nobody's context
    cache = KVCache(config.attention, model.config.num_layers, expected_frames=kept)
    last = len(config.sigmas) - 1 if exit_step is None else exit_step
    for start, end in blocks:
        block_noise = noise[:, :, start:end]
        with torch.no_grad():
            xt = block_noise[:, 0]
            for step in range(last):
                x0 = _denoise(model, text, xt, config.sigmas[step], cache)
                xt = add_noise(x0, block_noise[:, step + 1], _level(config.sigmas[step + 1], xt))
        x0 = _denoise(model, text, xt, config.sigmas[last], cache)
        yield x0
        if end < frames:
            _remember(model, text, x0.detach(), block_noise[:, -1], config, cache)


def _denoise(model: VideoDiT, text: TextKV, xt: Tensor, sigma: float, cache: KVCache) -> Tensor:
    level = _level(sigma, xt)
    return velocity_to_x0(model(xt, level * TIMESTEPS, text, cache=cache), xt, level)


@torch.no_grad()
def _remember(model: VideoDiT, text: TextKV, x0: Tensor, noise: Tensor, config: RolloutConfig, cache: KVCache) -> None:
    """Put a finished block into the cache, at the context noise level."""
    level = _level(config.context_sigma, x0)
    context = add_noise(x0, noise, level) if config.context_sigma else x0
    model.remember(context, level * TIMESTEPS, text, cache)


def _level(sigma: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
