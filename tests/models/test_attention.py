"""Block-causal attention: one rule for the mask of a whole sequence and for the cache of a stream."""

import pytest
import torch

from filmstill.models.attention import BlockCausal, frame_mask
from filmstill.models.kv_cache import KVCache
from goldens import FRAME_TOKENS, TINY, tiny

CPU = torch.device("cpu")
PLANS = {
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
by_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())


def sees(plan: BlockCausal, frame: int, other: int, frames: int) -> bool:
    """The rule in words: the end of the frame's own block, then the window that ends there, then the sink."""
    offset = plan.block_frames - 1 if plan.independent_first else 0
    end = min((frame + offset) // plan.block_frames * plan.block_frames - offset + plan.block_frames, frames)
    if other >= end:
        return False
    if plan.window_frames is None:
        return True
    # The window holds `window_frames` frames in all; sink frames that have left it stay, at the cost of its oldest.
    window = range(end - plan.window_frames, end)
    if window[0] <= 0:
        return True
    return other < plan.sink_frames or other in window[plan.sink_frames :]


@by_plan
@pytest.mark.parametrize("frames", [1, 3, 7, 12, 14])
def test_mask_is_the_rule_frame_by_frame(plan, frames):
    tokens = 2
    mask = frame_mask(plan, frames, tokens, False, CPU).dense
    assert mask.shape == (frames * tokens, frames * tokens)
    for row in range(frames * tokens):
        for column in range(frames * tokens):
            expected = sees(plan, row // tokens, column // tokens, frames)
            assert mask[row, column] == expected, (row // tokens, column // tokens)


@by_plan
def test_no_block_sees_more_frames_than_the_window(plan):
    mask = frame_mask(plan, 20, 1, False, CPU).dense
    assert mask.diagonal().all()
    assert mask.sum(dim=1).max() == (plan.window_frames or 20)


@by_plan
@torch.no_grad()
def test_cached_block_by_block_is_the_full_sequence(plan):
    """Clean frames, as they enter the cache in a rollout; 13 frames: the last block is short."""
    model, frames = tiny("causal"), 13
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(2, frames, TINY.in_channels, 4, 6, generator=dice)
    text = model.read_text(torch.randn(2, 5, TINY.text_dim, generator=dice))
    whole = model(x, torch.zeros(2), text, plan)
    cache = KVCache(plan, TINY.num_layers)
    parts = []
    for start, end in plan.blocks(frames):
        parts.append(model(x[:, start:end], torch.zeros(2), text, cache=cache))
        model.remember(x[:, start:end], torch.zeros(2), text, cache)
    assert cache.frames == frames
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-5 * whole.abs().max()
    if plan.window_frames is not None:  # the window is felt: all frames at once give something else
        everything = model(x, torch.zeros(2), text, BlockCausal(3, independent_first=plan.independent_first))
        assert (everything - whole).abs().max() > 1e-3


@by_plan
def test_cache_holds_no_more_than_the_window_needs(plan):
    """Counted in what is stored, not in what is handed out: a stream may go on for ever in the same memory."""
    cache, held = KVCache(plan, 1), []
    for start, end in plan.blocks(60):
        keys = torch.arange(start, end).repeat_interleave(FRAME_TOKENS).view(1, -1, 1, 1)
        cache.commit([(keys, keys)], end - start)
        stored = cache._rooms[0][0].flatten()
        assert stored.untyped_storage().nbytes() == stored.nbytes  # no view that keeps a larger tensor alive
        held.append(len(stored) // FRAME_TOKENS)
    # The next block is at least one frame of the window itself; a block just finished is kept whole.
    assert max(held) <= max((plan.window_frames or 61) - 1, plan.sink_frames + plan.block_frames)
    assert held[-1] == (60 if plan.window_frames is None else held[-2])


@by_plan
def test_cache_hands_out_the_frames_that_the_mask_shows(plan):
    frames = 20
    cache, mask = KVCache(plan, 1), frame_mask(plan, frames, 1, False, CPU).dense
    for start, end in plan.blocks(frames):
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


@by_plan
def test_a_rollout_of_known_length_has_one_room(plan):
    """What a block was shown stays as it was while later blocks are written, and all of it is one allocation."""
    frames = 20
    cache, shown = KVCache(plan, 1, expected_frames=frames), []
    for start, end in plan.blocks(frames):
        if (context := cache.context(0, end - start)) is not None:
            shown.append((context[0], context[0].clone()))
        keys = torch.arange(start, end).repeat_interleave(2).view(1, -1, 1, 1)
        cache.commit([(keys, -keys)], end - start)
    assert all(torch.equal(view, then) for view, then in shown)
    if plan.window_frames is None:
        assert len({view.untyped_storage().data_ptr() for view, _ in shown}) == 1
