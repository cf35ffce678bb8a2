"""Block-causal attention: the rule of which frames are visible, its masks, and the attention kernels.

The attention is a value passed to `VideoDiT.forward`, not a subclass. One rule (`BlockCausal.visible_frames`) defines
the local window, the sink and the cuts, both for the masks here and for the KV cache (`kv_cache.py`). A mask is stored
per pair of frames and expanded to tokens for the kernel in use: booleans for scaled_dot_product_attention, or a
BlockMask for FlexAttention (arXiv:2412.05496) on CUDA, which skips invisible blocks.

With relative positions the sink adjoins the window: its keys are rotated on by the frames between the two,
`BlockCausal.sink_shift`. No other key moves, because rotary scores depend on distances only, and a window's distances
are the same everywhere in a stream.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain, count, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.errors import require
from filmstill.models.rope import frame_shift, rotate
from filmstill.params.student import Student

FLEX_MIN_HEAD_DIM = 16  # smallest head dimension that FlexAttention supports on CUDA


@dataclass(frozen=True)
class BlockCausal:
    """Block-causal attention: a frame sees its own block and the blocks before it.

    block_frames: frames per block. window_frames: most frames that a block sees, including its own and the sink; None:
    all. sink_frames: number of first frames that stay visible when the window slides on. independent_first: frame 0
    alone is the first block. relative: the sink's positions adjoin the window's. cuts: pairs (cut, first) of frames;
    blocks that end after `cut` see no frame before `first` but the sink. Raises FilmstillError for a window below sink
    + block: a block would not see all of itself in the mask, but would in a rollout.
    """

    block_frames: int
    window_frames: int | None = None
    sink_frames: int = 0
    independent_first: bool = False
    relative: bool = False
    cuts: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        require(self.block_frames > 0, "block_frames", self.block_frames, "a positive integer")
        require(self.sink_frames >= 0, "sink_frames", self.sink_frames, "0 or more frames")
        if self.window_frames is not None:
            allowed = f"None, or at least sink_frames + block_frames = {self.min_window}"
            require(self.window_frames >= self.min_window, "window_frames", self.window_frames, allowed)

    @classmethod
    def of(cls, student: Student) -> "BlockCausal":
        """The attention described by section `student` of params.yaml."""
        return cls(
            student.block_frames,
            student.window_frames,
            student.sink_frames,
            student.independent_first,
            student.positions == "relative",
        )

    @property
    def min_window(self) -> int:
        """Smallest valid `window_frames`: the sink and one block."""
        return self.sink_frames + self.block_frames

    def blocks(self, frames: int | None) -> Iterator[tuple[int, int]]:
        """(first frame, end frame) of every block of a clip; the last block may be short. None: without end."""
        if frames is None:
            return pairwise(chain([0], count(self.first_block_frames, self.block_frames)))
        return pairwise(chain([0], self._later_starts(frames), [frames]))

    def block_count(self, frames: int) -> int:
        """Number of blocks of a clip."""
        return 1 + len(self._later_starts(frames))

    def context_frames(self, frames: int) -> int:
        """Number of frames before the last block of a clip: those that are context of another block."""
        later = self._later_starts(frames)
        return later[-1] if later else 0

    def cache_frames(self, frames: int | None, graph_frames: int = 0) -> int:
        """Number of frames that the KV cache of a rollout has room for; the last `graph_frames` have a gradient.

        frames: length of the rollout. Raises ValueError for one without end (None) and without a window.
        """
        if self.window_frames is None:
            if frames is None:
                raise ValueError("window_frames: is None, but a rollout without end needs a window")
            return frames
        room = self.window_frames + graph_frames
        return room if frames is None else min(frames, room)

    def _later_starts(self, frames: int) -> range:
        """First frames of every block of a clip but the first."""
        return range(self.first_block_frames, frames, self.block_frames)

    def whole_blocks(self, frames: int) -> int:
        """Largest number of frames, at most `frames`, that whole blocks have from the first on; 0 if there is none."""
        first = self.first_block_frames
        return 0 if frames < first else frames - (frames - first) % self.block_frames

    @property
    def first_block_frames(self) -> int:
        """Frames of the first block."""
        return 1 if self.independent_first else self.block_frames

    def visible_frames(self, end: int) -> tuple[int, int]:
        """(sink, first) for a block that ends before frame `end`: it sees frames [0, sink) and window [first, end)."""
        first = 0 if self.window_frames is None else end - (self.window_frames - self.sink_frames)
        first = max([first, *(kept for cut, kept in self.cuts if end > cut)])
        return (self.sink_frames, first) if first > self.sink_frames else (0, 0)

    def sink_shift(self, end: int) -> int:
        """Frames by which the sink's positions move on for a block that ends before frame `end`."""
        sink, first = self.visible_frames(end)
        return first - sink if self.relative and sink else 0

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

    def shifted_blocks(self, frames: int) -> list["ShiftedBlock"]:
        """Every block of a clip with what its sink moves by; empty if no sink moves."""
        blocks = [
            ShiftedBlock(range(start, end), self.visible_frames(end)[0], self.sink_shift(end))
            for start, end in self.blocks(frames)
        ]
        return blocks if any(block.shift for block in blocks) else []


@dataclass(frozen=True)
class ShiftedBlock:
    """A block of a whole sequence: its frames, the number of frames of its sink, and what their positions move by."""

    frames: range
    sink: int
    shift: int


class FrameMask:
    """Attention mask per pair of frames, for tokens in (frame, row, column) order."""

    def __init__(
        self, visible: Tensor, frame_tokens: int, device: torch.device, blocks: Sequence[ShiftedBlock] = ()
    ) -> None:
        """visible: boolean [F, F], True where the row's frame sees the column's; each row needs at least one True.

        blocks: all blocks of the sequence in their order, if a sink moves.
        """
        self.visible = visible.to(device)
        self.frame_tokens = frame_tokens
        self.blocks = blocks

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
    blocks = attention.shifted_blocks(frames)
    if not teacher_forcing:
        return FrameMask(attention.causal_mask(frames), frame_tokens, device, blocks)
    noisy = [replace(block, frames=range(frames + block.frames.start, frames + block.frames.stop)) for block in blocks]
    return FrameMask(attention.teacher_forcing_mask(frames), frame_tokens, device, blocks + noisy)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: FrameMask | None = None) -> Tensor:
    """Attention of q [B, heads, L, head_dim] over k, v [B, heads, keys, head_dim] to [B, L, heads * head_dim]."""
    if mask is not None and mask.blocks:
        return torch.cat([_attend_block(q, k, v, mask, block) for block in mask.blocks], dim=1)
    if mask is not None and q.is_cuda and q.shape[-1] >= FLEX_MIN_HEAD_DIM:
        out = _flex_attention()(q, k, v, block_mask=mask.block_mask)
    elif not q.is_cuda and torch.get_float32_matmul_precision() != "highest":
        out = _two_products(q, k, v, mask)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.dense)
    return out.transpose(1, 2).flatten(2)


def _attend_block(q: Tensor, k: Tensor, v: Tensor, mask: FrameMask, block: ShiftedBlock) -> Tensor:
    """Attention of one block of a whole sequence over the frames that it sees, with its sink moved."""
    size = mask.frame_tokens
    own = slice(block.frames.start * size, block.frames.stop * size)
    seen = mask.visible[block.frames.start].nonzero()[:, 0]
    tokens = (seen[:, None] * size + torch.arange(size, device=q.device)).flatten()
    return attend(q[:, :, own], move_sink(k[:, :, tokens], block.sink * size, block.shift), v[:, :, tokens])


def move_sink(keys: Tensor, sink: int, frames: int) -> Tensor:
    """Keys [B, heads, tokens, head_dim] whose first `sink` tokens are rotated on by `frames` frames."""
    if not frames:
        return keys
    table = frame_shift(keys.shape[-1], frames, keys.device)
    return torch.cat([rotate(keys[:, :, :sink], table), keys[:, :, sink:]], dim=2)


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
