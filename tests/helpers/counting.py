"""Counts instead of timings: floating-point operations and bytes of live tensors, real or fake."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from filmstill.models.attention import BlockCausal, frame_mask
from filmstill.models.dit import DiTConfig, RMSNorm
from filmstill.models.rope import rope_table
from filmstill.plan.machine import Machine
from filmstill.plan.run import SIZES

H100 = Machine("h100-80gb")
CPU = torch.device("cpu")
GROUPS = {"global": BlockCausal(3), "window": BlockCausal(3, 7), "window and sink": BlockCausal(2, 6, 2)}
by_attention = pytest.mark.parametrize("attention", GROUPS.values(), ids=GROUPS.keys())
by_precision = pytest.mark.parametrize("precision", SIZES)


@contextmanager
def without_numbers() -> Iterator[None]:
    """Run the block with fake tensors, empty caches of tables, and a norm that saves only its input, as on a GPU."""
    torch.set_num_threads(2)
    for cached in (rope_table, frame_mask):
        cached.cache_clear()
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RMSNorm, "forward", lambda self, x: OneKernel.apply(x, self.weight.to(x.dtype)))
        yield
    for cached in (rope_table, frame_mask):
        cached.cache_clear()


class OneKernel(torch.autograd.Function):
    """Norm that saves the tensors which the GPU's saves; the CPU's consists of several operators and saves more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


class Live(TorchDispatchMode):
    """Counts the bytes of live tensors created while it is active: `now` and at the `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_leaves(out) if isinstance(t, Tensor)):
            if storage._cdata not in self.seen | given:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def counted(run: Any) -> int:
    """Operations of a call, with attention computed by plain matrix products, which the counter sees on any device."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def given(config: DiTConfig, batch: int, frames: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """(latents, timesteps, token vectors of 7 tokens) for one forward pass, all zero."""
    latents = torch.zeros(batch, frames, config.in_channels, height, width)
    return latents, torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, 7, config.text_dim)
