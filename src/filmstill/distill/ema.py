"""Exponential moving average of a network's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """`shadow = decay*shadow + (1 - decay)*parameter`, from a copy of the parameters; no bias correction.

    Before update `start` the average is the parameters themselves.
    """

    def __init__(self, model: nn.Module, decay: float, start: int = 0) -> None:
        self.decay = decay
        self.start = start
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, index: int) -> None:
        """Take in the parameters after update `index`, counted from 0."""
        parameters = [p.detach() for p in model.parameters()]
        share = 1 - self.decay if index >= self.start else 1.0
        torch._foreach_lerp_(list(self.shadow.values()), parameters, share)

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """While the block runs `model` has the averaged parameters; afterwards its own again, to the bit."""
        own = {name: p.data for name, p in model.named_parameters()}
        for name, p in model.named_parameters():
            p.data = self.shadow[name]
        try:
            yield
        finally:
            for name, p in model.named_parameters():
                p.data = own[name]

    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters by name: what is sampled from and published."""
        return self.shadow

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self.shadow.items():
            value.copy_(tensors[name])
