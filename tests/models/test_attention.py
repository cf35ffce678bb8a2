"""Block-causal attention: one rule for the mask of a full sequence and for the KV cache of a rollout."""

from dataclasses import replace

import pytest
import torch

from caches import context
from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal, frame_mask
from filmstill.models.kv_cache import KeysValues, KVCache
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
WITH_CUTS = {
    "cut": BlockCausal(3, cuts=((6, 4),)),
    "cut, window and sink": BlockCausal(3, window_frames=7, sink_frames=2, cuts=((9, 7),)),
    "cut to the sink": BlockCausal(3, window_frames=9, sink_frames=3, cuts=((9, 9),)),
    "cut, independent first": BlockCausal(3, sink_frames=1, independent_first=True, cuts=((4, 3),)),
}
RELATIVE = {
    "no sink": BlockCausal(3, window_frames=6, relative=True),
    "sink": BlockCausal(3, window_frames=7, sink_frames=2, relative=True),
    "tight": BlockCausal(3, window_frames=4, sink_frames=1, relative=True),
    "independent first": BlockCausal(3, window_frames=6, sink_frames=1, independent_first=True, relative=True),
    "single frames": BlockCausal(1, window_frames=5, sink_frames=2, relative=True),
    "cut": BlockCausal(3, window_frames=9, sink_frames=2, relative=True, cuts=((6, 4),)),
}
by_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())


def sees(attention: BlockCausal, frame: int, other: int, frames: int) -> bool:
    """The rule written out: the end of the frame's block, the window that ends there, the sink."""
    block = attention.block_frames
    offset = block - 1 if attention.independent_first else 0
    end = min((frame + offset) // block * block - offset + block, frames)
    if other >= end:
        return False
    if any(end > cut and attention.sink_frames <= other < kept for cut, kept in attention.cuts):
        return False
    if attention.window_frames is None:
        return True
    # `window_frames` frames are visible in all; sink frames outside the window replace its oldest frames.
    window = range(end - attention.window_frames, end)
    if window[0] <= 0:
        return True
    return other < attention.sink_frames or other in window[attention.sink_frames :]


@pytest.mark.parametrize("attention", [*ATTENTIONS.values(), *WITH_CUTS.values(), *RELATIVE.values()], ids=str)
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


@pytest.mark.parametrize("attention", [*ATTENTIONS.values(), *WITH_CUTS.values(), *RELATIVE.values()], ids=str)
@torch.no_grad()
def test_cached_block_by_block_is_the_full_sequence(attention):
    """Clean frames, as a rollout caches them. With 13 frames the last block is short."""
    model, frames = tiny("causal"), 13
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(2, frames, TINY.in_channels, 4, 6, generator=dice)
    text = model.read_text(torch.randn(2, 5, TINY.text_dim, generator=dice))
    whole = model(x, torch.zeros(2), text, attention)
    cache = KVCache(attention, frames)
    parts = []
    for start, end in attention.blocks(frames):
        parts.append(model(x[:, start:end], torch.zeros(2), text, cache=cache))
        model.remember(x[:, start:end], torch.zeros(2), text, cache)
    assert cache.frames == frames
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-5 * whole.abs().max()
    if attention.window_frames is not None:  # the window has an effect: without it the result differs
        whole_context = replace(attention, window_frames=None, cuts=())
        everything = model(x, torch.zeros(2), text, whole_context)
        assert (everything - whole).abs().max() > 1e-3


@by_attention
@pytest.mark.parametrize("graph_frames", [0, 12])
def test_cache_has_room_for_the_window_and_the_frames_with_a_gradient(attention, graph_frames):
    """An endless stream needs constant memory, in one allocation."""
    cache, held = KVCache(attention, 60, graph_frames), set()
    for start, end in attention.blocks(60):
        remember(cache, start, end)
        keys = cache._buffers[0][0]
        assert keys.untyped_storage().nbytes() == keys.nbytes  # no view of a larger tensor
        held.add((keys.data_ptr(), keys.shape[2]))
    window = attention.window_frames
    assert [tokens for _, tokens in held] == [FRAME_TOKENS * (60 if window is None else window + graph_frames)]


@by_attention
@pytest.mark.parametrize("graph_frames", [0, 1, 12])
def test_a_block_sees_the_frames_that_the_mask_shows(attention, graph_frames):
    """With a gradient or without; a pass without one that is not committed, a denoising step, leaves no trace."""
    frames = 20
    cache, mask = KVCache(attention, frames, graph_frames), frame_mask(attention, frames, 1, False, CPU).dense
    for start, end in attention.blocks(frames):
        expected = mask[start].nonzero().flatten().tolist()
        slots, own = cache.slots(end - start), numbered(start, end)
        with torch.no_grad():
            noisy = cache.join(0, slots, (own[0] - 1000, own[1] - 1000))[0]
        assert sorted((noisy + 1000 * (noisy < 0)).flatten().tolist()) == repeated(expected)
        keys, values = cache.join(0, slots, own)
        assert keys.flatten().tolist() == repeated(expected)
        assert torch.equal(keys, values)
        remember(cache, start, end)


@by_attention
@torch.no_grad()
def test_without_a_gradient_a_block_and_its_context_are_one_view_of_the_buffer(attention):
    """Before the window is full and after."""
    cache, frames = KVCache(attention, 60), 60
    for start, end in attention.blocks(frames):
        keys, values = cache.join(0, cache.slots(end - start), numbered(start, end))
        assert keys.data_ptr() == cache._buffers[0][0].data_ptr()
        assert values.data_ptr() == cache._buffers[0][1].data_ptr()
        cache.commit(end - start)


@by_attention
@pytest.mark.parametrize("graph_start", [6, 7, 12])
def test_what_blocks_with_a_gradient_see_never_changes(attention, graph_start):
    """Recomputed after the rollout, as activation checkpointing does in the backward pass."""
    cache, seen = KVCache(attention, 30, 30 - graph_start), []
    for start, end in attention.blocks(30):
        if start >= graph_start:
            slots, own = cache.slots(end - start), numbered(start, end)
            seen.append((slots, own, cache.join(0, slots, own)[0]))
        remember(cache, start, end)
    assert seen
    assert all(torch.equal(cache.join(0, slots, own)[0], then) for slots, own, then in seen)


def test_what_enters_the_cache_is_a_constant():
    cache = KVCache(BlockCausal(1), 3)
    for _ in range(2):
        keys = torch.ones(1, 1, 1, 1, requires_grad=True) * 2
        with torch.no_grad():
            cache.join(0, cache.slots(1), (keys, keys))
        cache.commit(1)
    assert not any(tensor.requires_grad for tensor in context(cache, 0, 1))


@pytest.mark.parametrize("window", [None, 3])
def test_a_block_past_the_end_and_one_whose_context_was_never_written_are_refused(window):
    cache = KVCache(BlockCausal(1, window), 3)
    cache.commit(2)
    for with_gradient in (False, True):
        with torch.set_grad_enabled(with_gradient), pytest.raises(KeyError):
            cache.join(0, cache.slots(1), numbered(2, 3))
    with pytest.raises(ValueError, match="frames: are 4 with this block, but the KV cache is of 3"):
        cache.slots(2)


def remember(cache: KVCache, start: int, end: int) -> None:
    with torch.no_grad():
        cache.join(0, cache.slots(end - start), numbered(start, end))
    cache.commit(end - start)


def numbered(start: int, end: int) -> KeysValues:
    """Keys and values [1, 1, tokens, 1] of frames [start, end) that contain the numbers of their frames."""
    numbers = torch.arange(start, end).repeat_interleave(FRAME_TOKENS).view(1, 1, -1, 1)
    return numbers, numbers


def repeated(frames: list[int]) -> list[int]:
    return [frame for frame in frames for _ in range(FRAME_TOKENS)]


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
