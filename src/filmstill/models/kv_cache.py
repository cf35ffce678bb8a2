"""KV cache of a causal rollout: keys and values of the finished frames, under a sliding window with a sink.

Keys are cached after rotary embedding at absolute frame positions; with relative positions those of the sink are moved
on when they are read. Cached tensors are detached, so they are constants for every later block. Window, sink and cuts
follow `BlockCausal.visible_frames`, the rule of the full-sequence mask, in training and in serving.

Each layer has one ring buffer: a new frame is written over the oldest one that no later block sees. Without a gradient
a block writes its own keys and values into the buffer at every pass, and attention reads the buffer as a view. With a
gradient they are concatenated instead, because autograd does not allow a saved tensor to change. In training the buffer
is longer by the frames that have a gradient: activation checkpointing recomputes a block when later ones have been
written. Training and serving therefore read the same keys in different orders once the window has moved.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from filmstill.models.attention import BlockCausal, move_sink

KeysValues = tuple[Tensor, Tensor]  # [B, heads, tokens, head_dim] both


@dataclass(frozen=True)
class Slots:
    """Slots of a block's own `frames` frames, of the `context` that it sees before them, and of all that it sees.

    The `sink` first frames seen are the sink, whose positions move on by `shift` frames.
    """

    frames: int
    own: list[range]
    context: list[range]
    seen: list[range]
    sink: int
    shift: int


class KVCache:
    """Context of one rollout. `frames`: number of committed frames; `attention`: which of them stay visible."""

    def __init__(self, attention: BlockCausal, total_frames: int | None, graph_frames: int = 0) -> None:
        """total_frames: length of the rollout, None: without end. graph_frames: that of its part with a gradient."""
        self.attention = attention
        self.frames = 0
        self.total_frames = total_frames
        self.capacity = attention.cache_frames(total_frames, graph_frames)  # in frames
        self._buffers: dict[int, KeysValues] = {}  # by layer

    def slots(self, new_frames: int) -> Slots:
        """Slots of the next block, of `new_frames` frames. Raises ValueError for one past the end of the rollout."""
        start, end = self.frames, self.frames + new_frames
        if self.total_frames is not None and end > self.total_frames:
            raise ValueError(f"frames: are {end} with this block, but the KV cache is of {self.total_frames}")
        sink, first = self.attention.visible_frames(end)
        sinks = [range(sink)] if sink else []
        is_full = sink + end - first == self.capacity  # then their order is any: it makes no difference to attention
        seen = [range(self.capacity)] if is_full else sinks + self._ring(first, end)
        context, shift = sinks + self._ring(first, start), self.attention.sink_shift(end)
        return Slots(new_frames, self._ring(start, end), context, seen, sink, shift)

    def join(self, layer: int, slots: Slots, own: KeysValues) -> KeysValues:
        """The keys and values of `layer` that a block sees: those of its context, and its own."""
        tokens = own[0].shape[2] // slots.frames
        if torch.is_grad_enabled():
            if not slots.context:
                return own
            pairs = zip(self._buffers[layer], own, strict=True)
            keys, values = (torch.cat([*_at(buffer, slots.context, tokens), new], dim=2) for buffer, new in pairs)
        else:
            self.write(layer, slots, own)
            keys, values = (_joined(_at(buffer, slots.seen, tokens)) for buffer in self._buffers[layer])
        return move_sink(keys, slots.sink * tokens, slots.shift), values

    def write(self, layer: int, slots: Slots, own: KeysValues) -> None:
        """Write a block's own keys and values of `layer` into their slots. Raises KeyError if its context was not."""
        tokens = own[0].shape[2] // slots.frames
        if layer not in self._buffers and not slots.context:
            self._buffers[layer] = _empty_like(own, self.capacity * tokens)
        for buffer, new in zip(self._buffers[layer], own, strict=True):
            _write(_at(buffer, slots.own, tokens), new)

    def commit(self, new_frames: int) -> None:
        """Make the block that was last written in every layer context of those after it."""
        self.frames += new_frames

    def _ring(self, start: int, end: int) -> list[range]:
        """Slots of frames [start, end): the sink's are the first, the others take turns in those after it."""
        if start == end:
            return []
        sink = self.attention.sink_frames
        first = start if start < sink else sink + (start - sink) % (self.capacity - sink)
        beyond = first + end - start - self.capacity
        if beyond <= 0:
            return [range(first, first + end - start)]
        return [range(first, self.capacity), range(sink, sink + beyond)]


def _at(buffer: Tensor, slots: list[range], tokens: int) -> list[Tensor]:
    """The parts of a buffer [B, heads, tokens, head_dim] at these slots, of `tokens` tokens each, as views."""
    return [buffer[:, :, each.start * tokens : each.stop * tokens] for each in slots]


def _write(places: list[Tensor], new: Tensor) -> None:
    for place, part in zip(places, new.split([place.shape[2] for place in places], dim=2), strict=True):
        place.copy_(part)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _empty_like(own: KeysValues, tokens: int) -> KeysValues:
    keys, values = (new.new_empty(*new.shape[:2], tokens, new.shape[3]) for new in own)
    return keys, values
