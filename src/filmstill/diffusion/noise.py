"""The noise of a clip, frame by frame, by address.

A frame's noise depends on the clip's seed, its prompt, the denoising step and the frame's number alone: the
teacher and every student start from the same noise, and a longer stream begins with the shorter one's.
"""

import torch
from torch import Tensor

from filmstill.runtime.randomness import generator


def clip_noise(prompts: list[str], seeds: list[int], steps: int, shape: tuple[int, int, int, int]) -> Tensor:
    """[B, steps, F, C, H, W] for shape (F, C, H, W); steps: one for a teacher, `RolloutConfig.noises` for a student."""
    frames, frame_shape = shape[0], shape[1:]
    clips = [
        torch.randn(frame_shape, generator=generator(seed, "clip", prompt, step, frame))
        for prompt, seed in zip(prompts, seeds, strict=True)
        for step in range(steps)
        for frame in range(frames)
    ]
    return torch.stack(clips).view(len(prompts), steps, frames, *frame_shape)
