"""Keys and values of the frames a causal stream has finished.

Notable: keys are kept after rotary embedding at absolute frame positions; what is kept is detached, a
constant for every later block; the window and the sink follow `BlockCausal.visible_frames`, the rule of
the full-sequence mask, in training and in serving alike.
"""

import torch
from torch import Tensor

from filmstill.models.attention import BlockCausal


class KVCache:
    """The context of one rollout. `frames` have been committed; `plan` decides which are still visible."""

    def __init__(self, plan: BlockCausal, num_layers: int) -> None:
        self.plan = plan
        self.frames = 0
        self._kept: list[int] = []  # frame number of every kept frame, oldest first
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def context(self, layer: int, new_frames: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values [B, tokens, heads, head_dim] that a block of `new_frames` sees besides its own."""
        kept = self._layers[layer]
        if kept is None:
            return None
        visible = self._visible(self.frames + new_frames)
        if len(visible) == len(self._kept):
            return kept
        return self._pick(kept, visible)

    def commit(self, blocks: list[tuple[Tensor, Tensor]], new_frames: int) -> None:
        """Append a finished block's keys and values, one pair a layer, and let go of what no later block can see."""
        end = self.frames + new_frames
        # The next block is at least one frame long: what even that one cannot see is gone for good.
        visible = self._visible(end + 1)
        for layer, (keys, values) in enumerate(blocks):
            old = self._layers[layer]
            if old is not None:
                old_keys, old_values = old if len(visible) == len(self._kept) else self._pick(old, visible)
                keys, values = torch.cat([old_keys, keys.detach()], 1), torch.cat([old_values, values.detach()], 1)
            self._layers[layer] = (keys.detach(), values.detach())
        self._kept = [self._kept[i] for i in visible] + list(range(self.frames, end))
        self.frames = end

    def _visible(self, end: int) -> list[int]:
        """Indices into the kept frames that a block ending before frame `end` sees."""
        sink, first = self.plan.visible_frames(end)
        return [i for i, frame in enumerate(self._kept) if frame < sink or frame >= first]

    def _pick(self, kept: tuple[Tensor, Tensor], visible: list[int]) -> tuple[Tensor, Tensor]:
        keys, values = (t.unflatten(1, (len(self._kept), -1)) for t in kept)
        index = torch.tensor(visible, dtype=torch.long, device=keys.device)
        return keys[:, index].flatten(1, 2), values[:, index].flatten(1, 2)
