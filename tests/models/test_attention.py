"""Block-causal attention: one rule for the mask of a full sequence and for the KV cache of a rollout."""

import pytest
import torch

from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal, frame_mask
from filmstill.models.kv_cache import KVCache
from goldens import FRAME_TOKENS, TINY, tiny

CPU = torch.device("cpu")
ATTENTIONS = {
    "global": BlockCausal(3),
    "single frames": BlockCausal(1),
    "window": BlockCausal(3, window_frames=6),
    "window of no whole blocks": BlockCausal(3, window_frames=7),
    "window and sink": BlockCausal(3, window_frames=7, sink_frames=2),
    "sink of a block": BlockCausal(3, window_frames=9, sink_frames=3),
    "tight": BlockCausal(3, window_frames=4, sink_frames=1),
    "independent first": BlockCausal(3, independent_first=True),
    "independent first, window and sink": BlockCausal(3, window_frames=6, sink_frames=1, independent_first=True),
}
by_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())


def sees(attention: BlockCausal, frame: int, other: int, frames: int) -> bool:
    """The rule written out: the end of the frame's block, the window that ends there, the sink."""
    block = attention.block_frames
    offset = block - 1 if attention.independent_first else 0
    end = min((frame + offset) // block * block - offset + block, frames)
    if other >= end:
        return False
    if attention.window_frames is None:
        return True
    # `window_frames` frames are visible in all; sink frames outside the window replace its oldest frames.
    window = range(end - attention.window_frames, end)
    if window[0] <= 0:
        return True
    return other < attention.sink_frames or other in window[attention.sink_frames :]


@by_attention
@pytest.mark.parametrize("frames", [1, 3, 7, 12, 14])
def test_mask_is_the_rule_frame_by_frame(attention, frames):
    tokens = 2
    mask = frame_mask(attention, frames, tokens, False, CPU).dense
    assert mask.shape == (frames * tokens, frames * tokens)
    for row in range(frames * tokens):
        for column in range(frames * tokens):
            expected = sees(attention, row // tokens, column // tokens, frames)
            assert mask[row, column] == expected, (row // tokens, column // tokens)


@by_attention
def test_no_block_sees_more_frames_than_the_window(attention):
    mask = frame_mask(attention, 20, 1, False, CPU).dense
    assert mask.diagonal().all()
    assert mask.sum(dim=1).max() == (attention.window_frames or 20)


@by_attention
@torch.no_grad()
def test_cached_block_by_block_is_the_full_sequence(attention):
    """Clean frames, as a rollout caches them. With 13 frames the last block is short."""
    model, frames = tiny("causal"), 13
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(2, frames, TINY.in_channels, 4, 6, generator=dice)
    text = model.read_text(torch.randn(2, 5, TINY.text_dim, generator=dice))
    whole = model(x, torch.zeros(2), text, attention)
    cache = KVCache(attention, TINY.num_layers)
    parts = []
    for start, end in attention.blocks(frames):
        parts.append(model(x[:, start:end], torch.zeros(2), text, cache=cache))
        model.remember(x[:, start:end], torch.zeros(2), text, cache)
    assert cache.frames == frames
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-5 * whole.abs().max()
    if attention.window_frames is not None:  # the window has an effect: without it the result differs
        everything = model(x, torch.zeros(2), text, BlockCausal(3, independent_first=attention.independent_first))
        assert (everything - whole).abs().max() > 1e-3


@by_attention
def test_cache_holds_no_more_than_the_window_needs(attention):
    """Counts the stored frames, not those returned by `context`: an endless stream needs constant memory."""
    cache, held = KVCache(attention, 1), []
    for start, end in attention.blocks(60):
        keys = torch.arange(start, end).repeat_interleave(FRAME_TOKENS).view(1, -1, 1, 1)
        cache.commit([(keys, keys)], end - start)
        stored = cache._buffers[0][0].flatten()
        assert stored.untyped_storage().nbytes() == stored.nbytes  # no view of a larger tensor
        held.append(len(stored) // FRAME_TOKENS)
    # The next block takes at least one frame of the window; the block just finished is cached completely.
    assert max(held) <= max((attention.window_frames or 61) - 1, attention.sink_frames + attention.block_frames)
    assert held[-1] == (60 if attention.window_frames is None else held[-2])


@by_attention
def test_cache_hands_out_the_frames_that_the_mask_shows(attention):
    frames = 20
    cache, mask = KVCache(attention, 1), frame_mask(attention, frames, 1, False, CPU).dense
    for start, end in attention.blocks(frames):
        expected = mask[start, :start].nonzero().flatten().tolist()
        context = cache.context(0, end - start)
        assert ([] if context is None else context[0].flatten().tolist()) == expected
        assert context is None or torch.equal(context[0], context[1])
        numbers = torch.arange(start, end).view(1, -1, 1, 1)
        cache.commit([(numbers, numbers)], end - start)


def test_what_enters_the_cache_is_a_constant():
    cache = KVCache(BlockCausal(1), 1)
    for _ in range(2):
        keys = torch.ones(1, 1, 1, 1, requires_grad=True) * 2
        cache.commit([(keys, keys)], 1)
    assert not any(tensor.requires_grad for tensor in cache.context(0, 1))


@by_attention
def test_a_rollout_of_known_length_has_one_buffer(attention):
    """Context returned for a block does not change when later blocks are written, and is one allocation."""
    frames = 20
    cache, shown = KVCache(attention, 1, total_frames=frames), []
    for start, end in attention.blocks(frames):
        if (context := cache.context(0, end - start)) is not None:
            shown.append((context[0], context[0].clone()))
        keys = torch.arange(start, end).repeat_interleave(2).view(1, -1, 1, 1)
        cache.commit([(keys, -keys)], end - start)
    assert all(torch.equal(view, then) for view, then in shown)
    if attention.window_frames is None:
        assert len({view.untyped_storage().data_ptr() for view, _ in shown}) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((3, 2), "window_frames: is 2, allowed: None, or at least sink_frames + block_frames = 3"),
        ((3, 4, 2), "window_frames: is 4, allowed: None, or at least sink_frames + block_frames = 5"),
        ((3, 0), "window_frames: is 0, allowed: None, or at least sink_frames + block_frames = 3"),
        ((3, None, -1), "sink_frames: is -1, allowed: 0 or more frames"),
        ((0,), "block_frames: is 0, allowed: a positive integer"),
    ],
)
def test_attention_that_mask_and_rollout_read_differently_is_refused(arguments, line):
    with pytest.raises(FilmstillError) as refused:
        BlockCausal(*arguments)
    assert str(refused.value) == line


@by_attention
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 12, 13])
def test_blocks_cover_the_clip_and_are_counted_without_being_listed(attention, frames):
    blocks = list(attention.blocks(frames))
    assert [start for start, _ in blocks] == [0, *(end for _, end in blocks[:-1])] and blocks[-1][1] == frames
    assert (attention.block_count(frames), attention.context_frames(frames)) == (len(blocks), blocks[-1][0])


def test_the_blocks_of_an_endless_stream_take_no_memory():
    attention = BlockCausal(3)
    assert next(attention.blocks(3 * 10**15)) == (0, 3) and attention.block_count(3 * 10**15) == 10**15
