"""Addressed noise of clips.

The noise of a frame is a function of the clip's seed and prompt, the denoising step and the frame's number. Teacher
and students therefore start from the same noise, and the noise of a longer clip starts with that of a shorter one.
"""

import torch
from torch import Tensor

from filmstill.runtime.randomness import generator


def clip_noise(
    prompts: list[str], seeds: list[int], steps: int, shape: tuple[int, int, int, int], first: int = 0
) -> Tensor:
    """Standard normal noise [B, steps, F, C, H, W], float32, for one clip per prompt and seed.

    shape: (F, C, H, W). steps: 1 for a teacher, `RolloutConfig.noises` for a student. first: number in the clip of the
    first of the F frames; a stream makes the noise of one block at a time.
    """
    frames, frame_shape = shape[0], shape[1:]
    clips = [
        torch.randn(frame_shape, generator=generator(seed, "clip", prompt, step, frame))
        for prompt, seed in zip(prompts, seeds, strict=True)
        for step in range(steps)
        for frame in range(first, first + frames)
    ]
    return torch.stack(clips).view(len(prompts), steps, frames, *frame_shape)
