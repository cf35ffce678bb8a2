"""Addressed randomness: every random number is a function of (seed, purpose, step, sample).

A resumed run needs no generator state. Neither the world size nor a sample's place in a batch changes its draw.
"""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def generator(seed: int, purpose: str, *address: int | str) -> torch.Generator:
    """CPU generator seeded with the first 63 bits of the SHA-256 of its address (seed, purpose, *address)."""
    text = "/".join(map(str, (seed, purpose, *address)))
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(shape: tuple[int, ...], seed: int, purpose: str, step: int, samples: list[int] | range) -> Tensor:
    """Standard normal noise [len(samples), *shape], float32, from one generator per sample."""
    return torch.stack([torch.randn(shape, generator=generator(seed, purpose, step, s)) for s in samples])


def uniform(seed: int, purpose: str, step: int, samples: list[int] | range, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform numbers in [0, 1), float64 [len(samples), *shape]."""
    draws = [torch.rand(shape, dtype=torch.float64, generator=generator(seed, purpose, step, s)) for s in samples]
    return torch.stack(draws)


def integers(
    high: int, shape: tuple[int, ...], seed: int, purpose: str, step: int, samples: list[int] | range
) -> Tensor:
    """Integers in [0, high), int64 [len(samples), *shape]."""
    return torch.stack([torch.randint(high, shape, generator=generator(seed, purpose, step, s)) for s in samples])


def batch_indices(count: int, seed: int, purpose: str, step: int, batch: int) -> list[int]:
    """Indices in [0, count) of the batch at `step`; every sample occurs once per epoch."""
    positions = range(step * batch, (step + 1) * batch)
    return [int(_permutation(count, seed, purpose, p // count)[p % count]) for p in positions]


@lru_cache(maxsize=16)  # one entry per purpose
def _permutation(count: int, seed: int, purpose: str, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, purpose, epoch))
