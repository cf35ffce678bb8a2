"""Who attends to whom: blocks of frames, the mask that says so, and rotary positions.

Notable: a plan is a value given to `VideoDiT.forward`, not a subclass; the local window and the sink are
one rule (`visible_frames`), read by the mask here and by the cache in `kv_cache.py`.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

ROPE_THETA = 10000.0


@dataclass(frozen=True)
class BlockCausal:
    """Frames see their own block and the blocks before it.

    `window_frames` counts the frames a block may see, its own and the sink's included; None: all.
    `sink_frames` first frames never leave the window. `independent_first`: frame 0 is a block of its own.
    """

    block_frames: int
    window_frames: int | None = None
    sink_frames: int = 0
    independent_first: bool = False

    @property
    def least_window(self) -> int:
        """The smallest window a block can stand in, in frames."""
        return self.sink_frames + self.block_frames

    def blocks(self, frames: int) -> list[tuple[int, int]]:
        """(first frame, end frame) of every block; the last one may be short."""
        first = 1 if self.independent_first else min(self.block_frames, frames)
        edges = [0, *range(first, frames, self.block_frames), frames]
        return list(pairwise(edges))

    def visible_frames(self, end: int) -> tuple[int, int]:
        """(sink frames, first frame of the window) for a block that ends before frame `end`."""
        if self.window_frames is None or end <= self.window_frames:
            return 0, 0
        return self.sink_frames, end - (self.window_frames - self.sink_frames)


@lru_cache(maxsize=64)
def block_causal_mask(plan: BlockCausal, frames: int, frame_tokens: int, device: torch.device) -> Tensor:
    """Boolean [L, L], True where the row's token attends to the column's; tokens in (frame, row, column) order."""
    seen = torch.zeros(frames, frames, dtype=torch.bool)
    for start, end in plan.blocks(frames):
        sink, first = plan.visible_frames(end)
        seen[start:end, :sink] = True
        seen[start:end, first:end] = True
    seen |= torch.eye(frames, dtype=torch.bool)  # a window shorter than a block still leaves a frame itself
    return seen.repeat_interleave(frame_tokens, 0).repeat_interleave(frame_tokens, 1).to(device)


@lru_cache(maxsize=64)
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
