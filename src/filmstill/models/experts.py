"""Networks that give a score: one, or two experts of which the noise level decides (Wan2.2's A14B).

Notable: experts stand behind a network's interface; only the one that answers is on the device, the other waits in
the host's memory, and stays there until its noise level comes.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.runtime import distributed


class Denoiser(Protocol):
    """What a sampler and an objective ask of a teacher: VideoDiT's interface without plans and caches."""

    @property
    def config(self) -> DiTConfig: ...

    def read_text(self, text: Tensor) -> Any: ...

    def __call__(self, x: Tensor, t: Tensor, text: Any) -> Tensor: ...


class Experts:
    """`high` answers from timestep `boundary` on, `low` below it; samples of one batch may need both."""

    def __init__(self, high: VideoDiT, low: VideoDiT, boundary: float, device: torch.device) -> None:
        self.high, self.low = high, low
        self.boundary = boundary
        self.device = device

    @property
    def config(self) -> DiTConfig:
        """Both are of the same sizes."""
        return self.high.config

    def read_text(self, text: Tensor) -> Tensor:
        """The token vectors themselves: each expert reads them its own way."""
        return text

    def __call__(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Velocity [B, F, C, H, W] of x [B, F, C, H, W] at t [B], text [B, text_len, text_dim]."""
        noisy = t.to(x.device) >= self.boundary
        velocity = torch.empty_like(x)
        for expert, other, mine in ((self.high, self.low, noisy), (self.low, self.high, ~noisy)):
            asked = int(mine.sum())
            if distributed.all_reduce_max(asked):  # a sharded network needs every rank
                self._fetch(expert, other)
                some = mine if asked else torch.arange(len(mine), device=mine.device) == 0
                answer = expert(x[some], t[some.to(t.device)], expert.read_text(text[some]))
                velocity[mine] = answer[:asked]
        return velocity

    def _fetch(self, expert: VideoDiT, other: VideoDiT) -> None:
        """Put the one that answers on the device, in the other's place; what lies on several processes stays."""
        if distributed.sharding_config() is None and expert.device.type != self.device.type:
            other.cpu()
            expert.to(self.device)
