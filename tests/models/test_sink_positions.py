"""Relative positions: a sink that adjoins the window, however long the stream."""

from dataclasses import replace

import pytest
import torch
from test_attention import RELATIVE

from filmstill.models.attention import BlockCausal, move_sink
from filmstill.models.dit import VideoDiT
from filmstill.models.kv_cache import KVCache
from filmstill.models.rope import rope_table, rotate
from goldens import TINY, tiny

CPU = torch.device("cpu")
by_attention = pytest.mark.parametrize("attention", RELATIVE.values(), ids=RELATIVE.keys())


@pytest.mark.parametrize("frames", [1, 9, 2397])
def test_a_moved_key_is_the_key_rotated_at_its_new_frame(frames):
    keys = torch.randn(2, 4, 5 * 6, 12, generator=torch.Generator().manual_seed(0))
    moved = move_sink(rotate(keys, rope_table(12, 0, 5, 2, 3, CPU)), 2 * 6, frames)
    expected = rotate(keys, rope_table(12, frames, 5, 2, 3, CPU))
    assert (moved - expected)[:, :, :12].abs().max() <= 1e-5
    assert torch.equal(moved[:, :, 12:], rotate(keys, rope_table(12, 0, 5, 2, 3, CPU))[:, :, 12:])


@by_attention
def test_no_distance_exceeds_the_window_at_any_length(attention):
    for end in (7, 9, 12, 240, 2400):
        sink, first = attention.visible_frames(end)
        oldest = attention.sink_shift(end) if sink else first
        assert end - oldest <= attention.window_frames
        assert not sink or oldest + sink == first


@by_attention
@torch.no_grad()
def test_a_block_equals_a_clip_of_what_it_sees(attention):
    """With one layer a key depends on its own frame: a stream's last block, and the same after what it sees alone."""
    torch.manual_seed(0)
    model, frames = VideoDiT(replace(TINY, num_layers=1)), 22 if attention.independent_first else 21
    torch.nn.init.normal_(model.head.head.weight)
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(2, frames, TINY.in_channels, 4, 6, generator=dice)
    text, t = model.read_text(torch.randn(2, 5, TINY.text_dim, generator=dice)), torch.zeros(2)
    cache = KVCache(attention, frames)
    for start, end in attention.blocks(frames):
        streamed = model(x[:, start:end], t, text, cache=cache)
        model.remember(x[:, start:end], t, text, cache)
    sink, first = attention.visible_frames(end)
    seen = torch.cat([x[:, :sink], x[:, first:end]], dim=1)
    alone = KVCache(BlockCausal(seen.shape[1]), seen.shape[1])
    model.remember(seen[:, : start - end], t, text, alone)
    assert (model(x[:, start:], t, text, cache=alone) - streamed).abs().max() <= 1e-5 * streamed.abs().max()


@torch.no_grad()
def test_without_a_sink_relative_positions_are_the_absolute_ones():
    model, outputs = tiny("causal"), []
    x = torch.randn(1, 12, TINY.in_channels, 4, 6, generator=torch.Generator().manual_seed(0))
    for relative in (False, True):
        cache = KVCache(BlockCausal(3, 6, relative=relative), 12)
        text = model.read_text(torch.ones(1, 5, TINY.text_dim))
        for start in range(0, 12, 3):
            model.remember(x[:, start : start + 3], torch.zeros(1), text, cache)
        outputs.append(torch.cat([tensor.flatten() for pair in cache._buffers.values() for tensor in pair]))
    assert torch.equal(*outputs)


@by_attention
def test_teacher_forcing_is_the_stream_over_a_cache(attention):
    """Each noisy block of one masked pass, with its gradient, beside the block after the clean ones in the cache."""
    model, frames = tiny("causal"), 13 if attention.independent_first else 12
    dice = torch.Generator().manual_seed(0)
    clean, noisy = (torch.randn(2, frames, TINY.in_channels, 4, 6, generator=dice) for _ in range(2))
    text, t = torch.randn(2, 5, TINY.text_dim, generator=dice), torch.full((2, frames), 500.0)
    forced = model(noisy, t, model.read_text(text), attention, clean=clean)
    cache, read, parts = KVCache(attention, frames), model.read_text(text), []
    with torch.no_grad():
        for start, end in attention.blocks(frames):
            parts.append(model(noisy[:, start:end], t[:, start:end], read, cache=cache))
            model.remember(clean[:, start:end], torch.zeros(2), read, cache)
    assert (torch.cat(parts, 1) - forced).abs().max() <= 1e-5 * forced.abs().max()
    forced.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
