"""The student's causal few-step rollout: one function for training and serving.

For each block of frames: start from noise, predict x0 at each denoising step and noise it again to the next sigma,
yield the last x0, then run the network once more on it at the context noise level to append it to the KV cache.

In training, `exit_step` is the denoising step whose prediction is the block and carries the gradient; the steps before
it run without (Self Forcing, arXiv:2506.08009, algorithm 1). The context in the KV cache is detached. With a `window`,
this holds for the blocks in it only: the blocks before it are made as in serving, without a gradient.
"""

from collections.abc import Callable, Iterator
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
    """Rollout of a student: sigmas of the denoising steps, attention, and sigma of the context (0: clean)."""

    sigmas: tuple[float, ...]
    attention: BlockCausal
    context_sigma: float = 0.0

    @classmethod
    def of(cls, schedule: FlowSchedule, student: Student) -> "RolloutConfig":
        """The rollout described by section `student` of params.yaml."""
        sigmas = tuple(schedule.nodes(student.denoising_steps).tolist())
        return cls(sigmas, BlockCausal.of(student), student.context_noise)

    @property
    def noises(self) -> int:
        """Noise tensors per frame: one per denoising step, and one for context that is not clean."""
        return len(self.sigmas) + (self.context_sigma > 0)

    def evaluations(self, frames: int) -> float:
        """Network evaluations per clip of `frames`, in passes over all its frames; context passes are included."""
        return len(self.sigmas) + self.attention.context_frames(frames) / frames


def rollout(
    model: VideoDiT,
    text: TextKV,
    noise: Tensor,
    config: RolloutConfig,
    exit_step: int | None = None,
    window: tuple[int, int] | None = None,
) -> Iterator[Tensor]:
    """Yield the x0 of each block, [B, block frames, C, H, W], which becomes context and must not be modified.

    noise [B, config.noises, F, C, H, W]: noise[:, 0] is the start, noise[:, s] noises the prediction before denoising
    step s, and noise[:, -1] noises the context if config.context_sigma > 0. The rollout draws no random numbers.
    exit_step: index of the denoising step whose prediction is yielded, with a gradient if grad mode is on; None: the
    last. window: (first frame, end frame); a block that starts outside it exits at the last step, without a gradient.
    None: all frames.
    """
    frames = noise.shape[2]
    return rollout_stream(model, text, lambda start, end: noise[:, :, start:end], frames, config, exit_step, window)


def rollout_stream(
    model: VideoDiT,
    text: TextKV,
    noise: Callable[[int, int], Tensor],
    frames: int,
    config: RolloutConfig,
    exit_step: int | None = None,
    window: tuple[int, int] | None = None,
) -> Iterator[Tensor]:
    """`rollout` of a clip of `frames` frames whose noise is made block by block: `noise(start, end)` is its slice.

    Under a local window its memory does not depend on `frames`.
    """
    graph_frames = frames - (window[0] if window else 0) if torch.is_grad_enabled() else 0
    cache = KVCache(config.attention, frames, graph_frames)
    for start, end in config.attention.blocks(frames):
        in_window = window is None or window[0] <= start < window[1]
        last = exit_step if in_window and exit_step is not None else len(config.sigmas) - 1
        block_noise = noise(start, end)
        with torch.no_grad():  # only the exit step has a gradient
            xt = block_noise[:, 0]
            for step in range(last):
                x0 = _denoise(model, text, xt, config.sigmas[step], cache)
                xt = add_noise(x0, block_noise[:, step + 1], _level(config.sigmas[step + 1], xt))
        with torch.set_grad_enabled(in_window and torch.is_grad_enabled()):
            x0 = _denoise(model, text, xt, config.sigmas[last], cache)
        yield x0
        if end < frames:
            _remember(model, text, x0.detach(), block_noise[:, -1], config, cache)


def _denoise(model: VideoDiT, text: TextKV, xt: Tensor, sigma: float, cache: KVCache) -> Tensor:
    """x0 predicted from x_t [B, block frames, C, H, W] at sigma."""
    level = _level(sigma, xt)
    return velocity_to_x0(model(xt, level * TIMESTEPS, text, cache=cache), xt, level)


@torch.no_grad()
def _remember(model: VideoDiT, text: TextKV, x0: Tensor, noise: Tensor, config: RolloutConfig, cache: KVCache) -> None:
    """Append a finished block to the KV cache, at the context noise level."""
    level = _level(config.context_sigma, x0)
    context = add_noise(x0, noise, level) if config.context_sigma else x0
    model.remember(context, level * TIMESTEPS, text, cache)


def _level(sigma: float, x: Tensor) -> Tensor:
    """sigma as a float64 tensor [B]."""
    return torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
