"""KV cache of a causal rollout: keys and values of the finished frames, under a sliding window with a sink.

Keys are cached after rotary embedding at absolute frame positions. Cached tensors are detached, so they are constants
for every later block. The window and the sink follow `BlockCausal.visible_frames`, the rule of the full-sequence mask,
in training and in serving.

Each layer has one preallocated buffer if the rollout's length is known. When the window slides, `commit` replaces the
buffer by a new one that contains only the visible frames. A buffer is only ever written past the frames that it already
contains, so the views that the autograd graphs of earlier blocks hold never change.
"""

import torch
from torch import Tensor

from filmstill.models.attention import BlockCausal

KeysValues = tuple[Tensor, Tensor]  # [B, tokens, heads, head_dim] both


class KVCache:
    """Context of one rollout. `frames`: number of committed frames; `attention`: which of them stay visible."""

    def __init__(self, attention: BlockCausal, num_layers: int, total_frames: int = 0) -> None:
        """total_frames: number of frames that will be committed, if known, for which buffers are preallocated."""
        self.attention = attention
        self.frames = 0
        self._frame_tokens = 0
        self._buffer_frames = min(total_frames, attention.window_frames or total_frames)
        self._cached: list[int] = []  # frame number of every cached frame, oldest first
        self._buffers: list[KeysValues | None] = [None] * num_layers

    def context(self, layer: int, new_frames: int) -> KeysValues | None:
        """Cached keys and values that a block of `new_frames` sees besides its own; None if the cache is empty."""
        buffer = self._buffers[layer]
        return None if buffer is None else self._select(buffer, self._visible(self.frames + new_frames))

    def commit(self, blocks: list[KeysValues], new_frames: int) -> None:
        """Append a finished block's keys and values, one pair per layer, and slide the window to its end."""
        end = self.frames + new_frames
        # The next block has at least one frame: frames that are invisible even then are dropped.
        visible = self._visible(end + 1)
        window_slides = len(visible) < len(self._cached)
        self._frame_tokens = blocks[0][0].shape[1] // new_frames
        used = len(visible) * self._frame_tokens
        for layer, own in enumerate(blocks):
            buffer, tokens = self._buffers[layer], own[0].shape[1]
            if buffer is None or window_slides or buffer[0].shape[1] < used + tokens:
                buffer = self._new_buffer(buffer, visible, own, new_frames)
            for cached, new in zip(buffer, own, strict=True):
                cached[:, used : used + tokens] = new.detach()
            self._buffers[layer] = buffer
        self._cached = [self._cached[i] for i in visible] + list(range(self.frames, end))
        self.frames = end

    def _visible(self, end: int) -> list[int]:
        """Indices into the cached frames that a block ending before frame `end` sees: sink and window."""
        sink, first = self.attention.visible_frames(end)
        return [i for i, frame in enumerate(self._cached) if frame < sink or frame >= first]

    def _new_buffer(self, old: KeysValues | None, visible: list[int], own: KeysValues, new_frames: int) -> KeysValues:
        """A buffer that starts with the visible frames of `old` and has space for at least `new_frames` more."""
        batch, _, *heads = own[0].shape
        tokens = max(self._buffer_frames, len(visible) + new_frames) * self._frame_tokens
        keys, values = (new.new_empty(batch, tokens, *heads) for new in own)
        if old is not None:
            for buffer, cached in zip((keys, values), self._select(old, visible), strict=True):
                buffer[:, : cached.shape[1]] = cached
        return keys, values

    def _select(self, buffer: KeysValues, visible: list[int]) -> KeysValues:
        """Keys and values of the visible frames; views of the buffer if all cached frames are visible."""
        keys, values = (t[:, : len(self._cached) * self._frame_tokens] for t in buffer)
        if len(visible) == len(self._cached):
            return keys, values
        index = torch.tensor(visible, dtype=torch.long, device=keys.device)
        frames = (len(self._cached), -1)
        return keys.unflatten(1, frames)[:, index].flatten(1, 2), values.unflatten(1, frames)[:, index].flatten(1, 2)
