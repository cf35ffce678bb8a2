"""Rotary positions of video tokens over time, height and width (RoFormer, arXiv:2104.09864; Wan2.1's split)."""

from functools import lru_cache

import torch
from torch import Tensor

ROPE_THETA = 10000.0


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a table made while sampling serves training, too
def rope_table(head_dim: int, first_frame: int, frames: int, height: int, width: int, device: torch.device) -> Tensor:
    """exp(i*angle), complex64 [L, 1, head_dim/2], of tokens in (frame, row, column) order; angles in float64.

    The pairs of a head are split c - 2*(c//3), c//3, c//3 over time, height and width (Wan2.1, `rope_params`).
    """
    pairs = head_dim // 2
    split = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    positions = (torch.arange(first_frame, first_frame + frames), torch.arange(height), torch.arange(width))
    axes = []
    for axis, (size, position) in enumerate(zip(split, positions, strict=True)):
        frequency = ROPE_THETA ** (-torch.arange(size, dtype=torch.float64) / max(size, 1))
        shape = [1, 1, 1, size]
        shape[axis] = len(position)
        angle = torch.outer(position.double(), frequency).view(shape)
        axes.append(angle.expand(frames, height, width, size))
    angles = torch.cat(axes, dim=-1).reshape(-1, 1, pairs)
    return torch.polar(torch.ones_like(angles), angles).to(device, torch.complex64)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotary embedding of adjacent pairs as complex numbers: x [B, L, heads, head_dim] (RoFormer, arXiv:2104.09864)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)
