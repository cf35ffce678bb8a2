"""Keys and values of the frames a causal stream has finished.

Notable: keys are kept after rotary embedding at absolute frame positions; what is kept is detached, a
constant for every later block; the window and the sink follow `BlockCausal.visible_frames`, the rule of
the full-sequence mask, in training and in serving alike; a rollout of known length has one room a layer (until a
window moves on: then each block has a new one), so that what the graphs of its blocks hold on to are views of it. A
room is only ever written past what it already holds, so every view stays as it was.
"""

import torch
from torch import Tensor

from filmstill.models.attention import BlockCausal

KeysValues = tuple[Tensor, Tensor]  # [B, tokens, heads, head_dim] both


class KVCache:
    """The context of one rollout. `frames` have been committed; `attention` decides which are still visible."""

    def __init__(self, attention: BlockCausal, num_layers: int, expected_frames: int = 0) -> None:
        """expected_frames: of the whole rollout, where they are known."""
        self.attention = attention
        self.frames = 0
        self._frame_tokens = 0
        self._room_frames = min(expected_frames, attention.window_frames or expected_frames)
        self._kept: list[int] = []  # frame number of every kept frame, oldest first
        self._rooms: list[KeysValues | None] = [None] * num_layers

    def context(self, layer: int, new_frames: int) -> KeysValues | None:
        """Keys and values that a block of `new_frames` sees besides its own."""
        room = self._rooms[layer]
        return None if room is None else self._pick(room, self._visible(self.frames + new_frames))

    def commit(self, blocks: list[KeysValues], new_frames: int) -> None:
        """Append a finished block's keys and values, one pair a layer, and let go of what no later block can see."""
        end = self.frames + new_frames
        # The next block is at least one frame long: what even that one cannot see is gone for good.
        visible = self._visible(end + 1)
        self._frame_tokens = blocks[0][0].shape[1] // new_frames
        used = len(visible) * self._frame_tokens
        for layer, own in enumerate(blocks):
            room, tokens = self._rooms[layer], own[0].shape[1]
            if room is None or len(visible) < len(self._kept) or room[0].shape[1] < used + tokens:
                room = self._new_room(room, visible, own, new_frames)
            for kept, new in zip(room, own, strict=True):
                kept[:, used : used + tokens] = new.detach()
            self._rooms[layer] = room
        self._kept = [self._kept[i] for i in visible] + list(range(self.frames, end))
        self.frames = end

    def _visible(self, end: int) -> list[int]:
        """Indices into the kept frames that a block ending before frame `end` sees."""
        sink, first = self.attention.visible_frames(end)
        return [i for i, frame in enumerate(self._kept) if frame < sink or frame >= first]

    def _new_room(self, old: KeysValues | None, visible: list[int], own: KeysValues, new_frames: int) -> KeysValues:
        """Room for the visible frames, which are in it, and for the new ones at least."""
        batch, _, *heads = own[0].shape
        tokens = max(self._room_frames, len(visible) + new_frames) * self._frame_tokens
        keys, values = (new.new_empty(batch, tokens, *heads) for new in own)
        if old is not None:
            for room, kept in zip((keys, values), self._pick(old, visible), strict=True):
                room[:, : kept.shape[1]] = kept
        return keys, values

    def _pick(self, room: KeysValues, visible: list[int]) -> KeysValues:
        """The visible ones of the kept frames: as views where they are all of them."""
        keys, values = (t[:, : len(self._kept) * self._frame_tokens] for t in room)
        if len(visible) == len(self._kept):
            return keys, values
        index = torch.tensor(visible, dtype=torch.long, device=keys.device)
        frames = (len(self._kept), -1)
        return keys.unflatten(1, frames)[:, index].flatten(1, 2), values.unflatten(1, frames)[:, index].flatten(1, 2)
