"""Exponential moving average of a network's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from filmstill.runtime.distributed import local_tensor


class Ema:
    """`shadow = decay*shadow + (1 - decay)*parameter`, starting from a copy of the parameters, without bias correction.

    Before update `start` the average equals the parameters.
    """

    def __init__(self, model: nn.Module, decay: float, start: int = 0) -> None:
        self.decay = decay
        self.start = start
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, index: int) -> None:
        """Update the average by the parameters after update `index`, counted from 0."""
        parameters = [local_tensor(p.detach()) for p in model.parameters()]
        share = 1 - self.decay if index >= self.start else 1.0
        torch._foreach_lerp_([local_tensor(shadow) for shadow in self.shadow.values()], parameters, share)

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Give `model` the averaged parameters while the block runs; its own are restored bit for bit."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        """Swap in place, parameter by parameter: FSDP2 keeps references to the parameters' memory."""
        for name, p in model.named_parameters():
            own = p.detach().clone()
            p.copy_(self.shadow[name])
            self.shadow[name].copy_(own)

    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return self.shadow
