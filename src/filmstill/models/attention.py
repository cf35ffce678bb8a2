"""Who attends to whom: blocks of frames, the mask that says so, and the kernels that read it.

Notable: a attention is a value given to `VideoDiT.forward`, not a subclass; the local window and the sink are
one rule (`visible_frames`), read by the masks here and by the cache in `kv_cache.py`; a mask is a small table of
frames, which each kernel spells out for itself: as booleans for scaled_dot_product_attention, as a block mask for
FlexAttention (arXiv:2412.05496) on CUDA, where it skips what no token sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.params.student import Student

FLEX_LEAST = 16  # channels of a head that FlexAttention takes on CUDA


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

    @classmethod
    def of(cls, student: Student) -> "BlockCausal":
        """The attention that the section `student` of params.yaml describes."""
        return cls(student.block_frames, student.window_frames, student.sink_frames)

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

    def seen(self, frames: int) -> Tensor:
        """Boolean [frames, frames], True where the row's frame sees the column's."""
        seen = torch.zeros(frames, frames, dtype=torch.bool)
        for start, end in self.blocks(frames):
            sink, first = self.visible_frames(end)
            seen[start:end, :sink] = True
            seen[start:end, first:end] = True
        return seen | torch.eye(frames, dtype=torch.bool)  # a window shorter than a block leaves a frame itself

    def seen_teacher_forcing(self, frames: int) -> Tensor:
        """Boolean [2 * frames, 2 * frames] over clean frames, then the same frames noisy.

        Clean frames see clean ones, block-causally. A noisy block sees itself, and of the blocks before it the clean
        ones: what the cache of a stream holds when it comes to that block.
        """
        clean = self.seen(frames)
        own = torch.zeros(frames, frames, dtype=torch.bool)
        for start, end in self.blocks(frames):
            own[start:end, start:end] = True
        return torch.cat([torch.cat([clean, torch.zeros_like(own)], 1), torch.cat([clean & ~own, own], 1)])


class FrameMask:
    """A table of who sees whom, frame by frame, for tokens in (frame, row, column) order."""

    def __init__(self, seen: Tensor, frame_tokens: int, device: torch.device) -> None:
        """seen: boolean [F, F]; every frame must see one at least."""
        self.seen = seen.to(device)
        self.frame_tokens = frame_tokens

    @cached_property
    @torch.inference_mode(False)
    def dense(self) -> Tensor:
        """Boolean [L, L]."""
        return self.seen.repeat_interleave(self.frame_tokens, 0).repeat_interleave(self.frame_tokens, 1)

    @cached_property
    @torch.inference_mode(False)
    def blocks(self) -> Any:
        """FlexAttention's BlockMask."""
        from torch.nn.attention.flex_attention import create_block_mask  # imports the compiler: a second

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.seen[query // self.frame_tokens, key // self.frame_tokens]

        length = len(self.seen) * self.frame_tokens
        compiled = self.seen.is_cuda  # uncompiled it holds a number for every pair of tokens
        return create_block_mask(sees, None, None, length, length, device=str(self.seen.device), _compile=compiled)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a mask made while sampling serves training, too
def frame_mask(
    attention: BlockCausal, frames: int, frame_tokens: int, teacher_forcing: bool, device: torch.device
) -> FrameMask:
    """The mask of `attention` over a whole sequence, made once per shape."""
    seen = attention.seen_teacher_forcing(frames) if teacher_forcing else attention.seen(frames)
    return FrameMask(seen, frame_tokens, device)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: FrameMask | None = None) -> Tensor:
    """Attention of [B, L, heads, head_dim] thrice, to [B, L, heads * head_dim]."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    if mask is None:
        out = F.scaled_dot_product_attention(q, k, v)
    elif q.is_cuda and q.shape[-1] >= FLEX_LEAST:
        out = _flex_attention()(q, k, v, block_mask=mask.blocks)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.dense)
    return out.transpose(1, 2).flatten(2)


@lru_cache(maxsize=1)
def _flex_attention() -> Callable[..., Tensor]:
    """Compiled: uncompiled it would hold every score in memory."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
