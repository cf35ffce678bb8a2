"""Block-causal attention: the rule of which frames are visible, its masks, and the attention kernels.

The attention is a value passed to `VideoDiT.forward`, not a subclass. One rule (`BlockCausal.visible_frames`) defines
the local window and the sink, both for the masks here and for the sliding window of the KV cache (`kv_cache.py`). A
mask is stored per pair of frames and expanded to tokens for the kernel in use: booleans for
scaled_dot_product_attention, or a BlockMask for FlexAttention (arXiv:2412.05496) on CUDA, which skips invisible blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.errors import require
from filmstill.params.student import Student

FLEX_MIN_HEAD_DIM = 16  # smallest head dimension that FlexAttention supports on CUDA


@dataclass(frozen=True)
class BlockCausal:
    """Block-causal attention: a frame sees its own block and the blocks before it.

    block_frames: frames per block. window_frames: most frames that a block sees, including its own and the sink; None:
    all. sink_frames: number of first frames that stay visible when the window slides on. independent_first: frame 0
    alone is the first block. Raises FilmstillError for a window below sink + block: a block would not see all of itself
    in the mask, but would in a rollout.
    """

    block_frames: int
    window_frames: int | None = None
    sink_frames: int = 0
    independent_first: bool = False

    def __post_init__(self) -> None:
        require(self.block_frames > 0, "block_frames", self.block_frames, "a positive integer")
        require(self.sink_frames >= 0, "sink_frames", self.sink_frames, "0 or more frames")
        if self.window_frames is not None:
            allowed = f"None, or at least sink_frames + block_frames = {self.min_window}"
            require(self.window_frames >= self.min_window, "window_frames", self.window_frames, allowed)

    @classmethod
    def of(cls, student: Student) -> "BlockCausal":
        """The attention described by section `student` of params.yaml."""
        return cls(student.block_frames, student.window_frames, student.sink_frames)

    @property
    def min_window(self) -> int:
        """Smallest valid `window_frames`: the sink and one block."""
        return self.sink_frames + self.block_frames

    def blocks(self, frames: int) -> Iterator[tuple[int, int]]:
        """(first frame, end frame) of every block of a clip; the last block may be short. Lazy, for long streams."""
        return pairwise(chain([0], self._later_starts(frames), [frames]))

    def block_count(self, frames: int) -> int:
        """Number of blocks of a clip."""
        return 1 + len(self._later_starts(frames))

    def context_frames(self, frames: int) -> int:
        """Number of frames before the last block of a clip: those that are context of another block."""
        later = self._later_starts(frames)
        return later[-1] if later else 0

    def cache_frames(self, frames: int, graph_frames: int = 0) -> int:
        """Number of frames that the KV cache of a rollout has room for; the last `graph_frames` have a gradient."""
        return frames if self.window_frames is None else min(frames, self.window_frames + graph_frames)

    def _later_starts(self, frames: int) -> range:
        """First frames of every block of a clip but the first."""
        return range(1 if self.independent_first else self.block_frames, frames, self.block_frames)

    def visible_frames(self, end: int) -> tuple[int, int]:
        """(sink, first) for a block that ends before frame `end`: it sees frames [0, sink) and window [first, end)."""
        if self.window_frames is None or end <= self.window_frames:
            return 0, 0
        return self.sink_frames, end - (self.window_frames - self.sink_frames)

    def causal_mask(self, frames: int) -> Tensor:
        """Boolean [frames, frames], True where the row's frame sees the column's frame."""
        mask = torch.zeros(frames, frames, dtype=torch.bool)
        for start, end in self.blocks(frames):
            sink, first = self.visible_frames(end)
            mask[start:end, :sink] = True
            mask[start:end, first:end] = True
        return mask

    def teacher_forcing_mask(self, frames: int) -> Tensor:
        """Boolean [2 * frames, 2 * frames] for the clean frames followed by the same frames noisy.

        Clean frames see clean frames block-causally. A noisy block sees itself and the clean version of the blocks
        before it, which is what the KV cache contains when a rollout reaches that block.
        """
        clean = self.causal_mask(frames)
        own = torch.zeros(frames, frames, dtype=torch.bool)
        for start, end in self.blocks(frames):
            own[start:end, start:end] = True
        return torch.cat([torch.cat([clean, torch.zeros_like(own)], 1), torch.cat([clean & ~own, own], 1)])


class FrameMask:
    """Attention mask per pair of frames, for tokens in (frame, row, column) order."""

    def __init__(self, visible: Tensor, frame_tokens: int, device: torch.device) -> None:
        """visible: boolean [F, F], True where the row's frame sees the column's; each row needs at least one True."""
        self.visible = visible.to(device)
        self.frame_tokens = frame_tokens

    @cached_property
    @torch.inference_mode(False)
    def dense(self) -> Tensor:
        """Boolean [L, L] over tokens, L = F * frame_tokens, for scaled_dot_product_attention."""
        return self.visible.repeat_interleave(self.frame_tokens, 0).repeat_interleave(self.frame_tokens, 1)

    @cached_property
    @torch.inference_mode(False)
    def block_mask(self) -> Any:
        """BlockMask for FlexAttention."""
        from torch.nn.attention.flex_attention import create_block_mask  # slow import: it loads the compiler

        def is_visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.visible[query // self.frame_tokens, key // self.frame_tokens]

        length = len(self.visible) * self.frame_tokens
        # Uncompiled it allocates L x L numbers; a CPU's masks are small and its machine may have no compiler.
        create = torch.compile(create_block_mask) if self.visible.is_cuda else create_block_mask
        return create(is_visible, None, None, length, length, device=str(self.visible.device))


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached mask made while sampling must also serve training
def frame_mask(
    attention: BlockCausal, frames: int, frame_tokens: int, teacher_forcing: bool, device: torch.device
) -> FrameMask:
    """The mask of `attention` over a whole sequence of `frames`; cached per combination of arguments."""
    visible = attention.teacher_forcing_mask(frames) if teacher_forcing else attention.causal_mask(frames)
    return FrameMask(visible, frame_tokens, device)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: FrameMask | None = None) -> Tensor:
    """Attention of q [B, heads, L, head_dim] over k, v [B, heads, keys, head_dim] to [B, L, heads * head_dim]."""
    if mask is not None and q.is_cuda and q.shape[-1] >= FLEX_MIN_HEAD_DIM:
        out = _flex_attention()(q, k, v, block_mask=mask.block_mask)
    elif not q.is_cuda and torch.get_float32_matmul_precision() != "highest":
        out = _two_products(q, k, v, mask)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.dense)
    return out.transpose(1, 2).flatten(2)


def _two_products(q: Tensor, k: Tensor, v: Tensor, mask: FrameMask | None) -> Tensor:
    """Attention by two matrix products and a softmax, for CPUs below the highest float32 precision.

    There the flash kernel is slow, and torch's own two products also look for rows that see nothing (a tenth of a
    student's time), which no mask here has.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask.dense, float("-inf"))
    return scores.softmax(dim=-1) @ v


@lru_cache(maxsize=1)
def _flex_attention() -> Callable[..., Tensor]:
    """Compiled FlexAttention; uncompiled it would keep all scores in memory."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
