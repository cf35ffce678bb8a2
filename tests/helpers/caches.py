"""What a KV cache contains."""

import torch

from filmstill.models.kv_cache import KeysValues, KVCache


def context(cache: KVCache, layer: int, new_frames: int) -> KeysValues | None:
    """Cached keys and values that a block of `new_frames` sees besides its own; None if the cache is empty."""
    slots = cache.slots(new_frames).context
    if not slots:
        return None
    buffers = cache._buffers[layer]
    tokens = buffers[0].shape[2] // cache.capacity
    keys, values = (torch.cat([b[:, :, s.start * tokens : s.stop * tokens] for s in slots], 2) for b in buffers)
    return keys, values
