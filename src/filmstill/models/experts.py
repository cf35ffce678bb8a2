"""Teachers: one network, or two experts chosen by noise level (Wan2.2's A14B) behind the same interface.

Only the expert in use is on the device; the other stays in host memory until a timestep of its range occurs.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.runtime import distributed


class Denoiser(Protocol):
    """Interface of a teacher for samplers and objectives: VideoDiT without block-causal attention and KV cache."""

    @property
    def config(self) -> DiTConfig: ...

    def read_text(self, text: Tensor) -> Any: ...

    def __call__(self, x: Tensor, t: Tensor, text: Any) -> Tensor: ...


class Experts:
    """`high` computes samples with timestep >= `boundary`, `low` the others; one batch may need both."""

    def __init__(self, high: VideoDiT, low: VideoDiT, boundary: float, device: torch.device) -> None:
        self.high, self.low = high, low
        self.boundary = boundary
        self.device = device

    @property
    def config(self) -> DiTConfig:
        """Sizes, which are the same for both experts."""
        return self.high.config

    def read_text(self, text: Tensor) -> Tensor:
        """The token vectors unchanged: keys and values differ between the experts."""
        return text

    def __call__(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """Velocity [B, F, C, H, W] of x [B, F, C, H, W] at timesteps t [B] for text [B, text_len, text_dim]."""
        noisy = t.to(x.device) >= self.boundary
        velocity = torch.empty_like(x)
        for expert, other, selected in ((self.high, self.low, noisy), (self.low, self.high, ~noisy)):
            count = int(selected.sum())
            if distributed.all_reduce_max(count):  # if any rank needs a sharded network, every rank must run it
                self._move_to_device(expert, other)
                # A rank without a sample for this expert runs its first sample and drops the result.
                batch = selected if count else torch.arange(len(selected), device=selected.device) == 0
                output = expert(x[batch], t[batch.to(t.device)], expert.read_text(text[batch]))
                velocity[selected] = output[:count]
        return velocity

    def _move_to_device(self, expert: VideoDiT, other: VideoDiT) -> None:
        """Move `expert` to the device and `other` to host memory; sharded networks stay where they are."""
        if distributed.sharding_config() is None and expert.device.type != self.device.type:
            other.cpu()
            expert.to(self.device)
