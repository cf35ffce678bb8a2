"""Position embeddings: rotary for video tokens over time, height and width, sinusoidal for timesteps.

Source: RoFormer (arXiv:2104.09864), with the split over three axes of Wan2.1 (arXiv:2503.20314).
"""

from functools import lru_cache

import torch
from torch import Tensor

ROPE_THETA = 10000.0


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached table made while sampling must also serve training
def rope_table(head_dim: int, first_frame: int, frames: int, height: int, width: int, device: torch.device) -> Tensor:
    """Rotations exp(i*angle), complex64 [L, head_dim/2], of tokens in (frame, row, column) order; cached per shape.

    Angles are computed in float64.
    """
    positions = (torch.arange(first_frame, first_frame + frames), torch.arange(height), torch.arange(width))
    axes = []
    for axis, (frequency, position) in enumerate(zip(_frequencies(head_dim), positions, strict=True)):
        shape = [1, 1, 1, len(frequency)]
        shape[axis] = len(position)
        angle = torch.outer(position.double(), frequency).view(shape)
        axes.append(angle.expand(frames, height, width, len(frequency)))
    return _rotations(torch.cat(axes, dim=-1).flatten(0, 2), device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def frame_shift(head_dim: int, frames: int, device: torch.device) -> Tensor:
    """Rotations [1, head_dim/2] that move a rotated token on by `frames` frames, as in `rope_table`."""
    time, *space = _frequencies(head_dim)
    return _rotations(torch.cat([frames * time, *(torch.zeros_like(axis) for axis in space)])[None], device)


def _frequencies(head_dim: int) -> list[Tensor]:
    """Angles per step along time, height and width, float64.

    The c = head_dim/2 channel pairs of a head are split into c - 2*(c//3), c//3, c//3 (Wan2.1, `rope_params`).
    """
    pairs = head_dim // 2
    sizes = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    return [ROPE_THETA ** (-torch.arange(size, dtype=torch.float64) / max(size, 1)) for size in sizes]


def _rotations(angles: Tensor, device: torch.device) -> Tensor:
    return torch.polar(torch.ones_like(angles), angles).to(device, torch.complex64)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotary embedding of x [B, heads, L, head_dim]: adjacent channels, as a complex number, times the table."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """[..., dim] float64: cosines, then sines, of timesteps t [...] at log-spaced frequencies."""
    half = dim // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angle = t.double()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
