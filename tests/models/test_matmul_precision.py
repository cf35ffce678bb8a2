"""Attention and matrix products below the highest float32 precision."""

from collections.abc import Iterator

import pytest
import torch

from filmstill.models.attention import BlockCausal, attend, frame_mask


@pytest.fixture
def medium() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_medium_precision_is_that_of_the_highest(medium: None, masked: bool) -> None:
    dice = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 24, 32, generator=dice) for _ in range(3))
    mask = frame_mask(BlockCausal(3), 6, 4, False, q.device) if masked else None
    ours = attend(q, k, v, mask)
    torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(ours, attend(q, k, v, mask), rtol=0, atol=2e-2)  # bfloat16 has 8 bits


def test_medium_precision_is_deterministic(medium: None) -> None:
    dice = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 96, 32, generator=dice)
    assert torch.equal(attend(q, q, q), attend(q, q, q))
