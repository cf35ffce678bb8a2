"""Which sample comes when: every epoch a permutation by address."""

from functools import lru_cache

import torch
from torch import Tensor

from filmstill.runtime import randomness


def batch_indices(count: int, seed: int, purpose: str, step: int, batch: int) -> list[int]:
    """Indices into `count` samples of the batch at `step`; every sample comes once an epoch."""
    positions = range(step * batch, (step + 1) * batch)
    return [int(_permutation(count, seed, purpose, p // count)[p % count]) for p in positions]


@lru_cache(maxsize=16)  # one a purpose
def _permutation(count: int, seed: int, purpose: str, epoch: int) -> Tensor:
    return torch.randperm(count, generator=randomness.generator(seed, purpose, epoch))
