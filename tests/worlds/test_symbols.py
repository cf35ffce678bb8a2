"""The symbols world's clips: glyphs, paths on whole pixels, clips that loop, and addressed draws."""

from collections import Counter
from dataclasses import replace
from math import hypot

import pytest
import torch

from filmstill.models.codec import DctCodec
from filmstill.params.world import World
from filmstill.worlds.grammar import COLOURS, COMBINATIONS, MOTIONS, SYMBOLS, Attributes, parse
from filmstill.worlds.judge import judge, look_at
from filmstill.worlds.symbols import BOX, RGB, SIZE, _completed, draw, glyph, path, real_clips, render

WORLD = World()
SHORT = World(frames=3, period=6)
NATURAL = World(period=20, any_phase=True)
CODEC = DctCodec(torch.zeros(16), torch.ones(()))
WORLDS = [WORLD, World(amplitude=6.0, period=24), World(amplitude=7.0, period=12), World(amplitude=4.0, period=4)]
STAR = Attributes("star", "red", "sways")


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_paths_repeat_after_a_period_mirror_after_half_of_one_and_reach_the_amplitude(world: World):
    frames = torch.arange(3 * world.period)
    for motion in MOTIONS:
        xy = path(motion, frames, world)
        assert not xy.is_floating_point(), "whole pixels"
        assert torch.equal(xy[: 2 * world.period], xy[world.period :])
        assert torch.equal(xy[: -world.period // 2], -xy[world.period // 2 :])
        assert xy.abs().max() == world.amplitude


@pytest.mark.parametrize("world", [*WORLDS, World(amplitude=4.5, period=30, frames=15)], ids=str)
def test_each_motion_is_the_one_that_its_words_describe(world: World):
    frames = torch.arange(world.period)
    sways, bobs, clockwise, anticlockwise = (path(motion, frames, world) for motion in MOTIONS)
    assert not sways[:, 1].any() and not bobs[:, 0].any()
    assert torch.equal(sways[:, 0], bobs[:, 1]) and sways[1, 0] > 0
    half = world.period // 2  # a swing to one side is its own mirror image in time
    assert torch.equal(sways[: half + 1], sways[: half + 1].flip(0))
    assert clockwise[0, 0] == 0 and clockwise[0, 1] < 0, "from the top"
    assert clockwise[1, 0] > 0, "to the right"
    assert torch.equal(anticlockwise, clockwise * torch.tensor([-1, 1]))
    assert all(abs(hypot(*xy) - world.amplitude) < 0.8 for xy in clockwise.tolist())


def test_the_default_sway_pixel_by_pixel():
    x = path("sways", torch.arange(12), WORLD)[:, 0].tolist()
    assert x == [0, 4, 7, 8, 7, 4, 0, -4, -7, -8, -7, -4]


def test_a_clip_of_whole_periods_loops():
    assert WORLD.loops and not World(period=24).loops and World(frames=24).loops
    assert not World(name="open", height=64, width=64).loops
    clips = render(list(COMBINATIONS[::24]), 36, WORLD)
    assert torch.equal(clips[:, :12], clips[:, 12:24])
    assert torch.equal(clips[:, 5:17], render(list(COMBINATIONS[::24]), 12, WORLD, first_frame=5))
    assert not torch.equal(clips[:, :12], clips[:, 1:13])


def test_a_glyph_fills_its_box_and_is_not_cut():
    for symbol in SYMBOLS:
        ink = glyph(symbol)
        assert ink.shape == (BOX, BOX) and ink.min() == 0 and ink.max() > 0.9
        rows, columns = (int((ink.amax(dim=d) > 0).sum()) for d in (1, 0))
        assert 15 <= max(rows, columns) <= BOX
        assert ink.sum() > 30, "more than a few pixels"


def test_a_frame_holds_the_symbol_in_its_place_and_colour_and_nothing_else():
    for shown in COMBINATIONS[::7]:
        clip = render([shown], 12, WORLD)[0]
        ink, places = glyph(str(shown.symbol)), path(str(shown.motion), torch.arange(12), WORLD).tolist()
        for frame, (x, y) in zip(clip, places, strict=True):
            top, left = (SIZE - BOX) // 2 + y, (SIZE - BOX) // 2 + x
            expected = torch.tensor(RGB[str(shown.colour)])[:, None, None] * ink
            assert torch.equal(frame[:, top : top + BOX, left : left + BOX], expected)
            assert frame.sum() == pytest.approx(expected.sum())


def test_no_symbol_looks_like_another_after_the_codec():
    """Phone and heart are the closest pair. The judge asks for 0.93."""
    shown = [Attributes(symbol, "yellow", "clockwise") for symbol in SYMBOLS]
    correlations = look_at(CODEC.decode(CODEC.encode(render(shown, 12, WORLD)))).correlations
    of_itself = torch.eye(len(SYMBOLS), dtype=torch.bool)[:, None].expand_as(correlations)
    assert correlations[of_itself].min() > 0.98
    assert correlations[~of_itself].max() < 0.88


def test_draws_are_addressed():
    def drawn(seed: int, purpose: str, step: int, samples: range, share: float = 0.3) -> list[tuple[Attributes, str]]:
        clips = draw(SHORT, seed, purpose, step, samples, share)
        assert torch.equal(clips.video, render(clips.attributes, 3, SHORT))
        return list(zip(clips.attributes, clips.prompts, strict=True))

    first = drawn(0, "test", 0, range(12))
    assert first == drawn(0, "test", 0, range(12))
    assert first[4:8] == drawn(0, "test", 0, range(4, 8)), "a sample's place in the batch changes nothing"
    others = [drawn(1, "test", 0, range(12)), drawn(0, "other", 0, range(12)), drawn(0, "test", 1, range(12))]
    assert all(other != first for other in others)
    full = drawn(0, "test", 0, range(12), 0.0)
    assert [shown for shown, _ in full] == [shown for shown, _ in first], "what is left open does not change the clip"


def test_a_training_sees_every_trained_combination_and_no_other():
    symbols: Counter[str] = Counter()
    seen: Counter[Attributes] = Counter()
    left_open = 0
    for step in range(120):
        clips = draw(SHORT, 0, "test", step, range(40), 0.15)
        for shown, prompt in zip(clips.attributes, clips.prompts, strict=True):
            named = parse(prompt)
            assert named == (replace(shown, colour=None) if named.open else shown)
            symbols[shown.symbol] += 1
            seen[shown] += 1
            left_open += named.open
    assert symbols == dict.fromkeys(SYMBOLS, 120 * 40 // len(SYMBOLS)), "symbols take turns"
    assert set(seen) == {a for a in COMBINATIONS if not a.held_out}
    assert 0.13 < left_open / 4800 < 0.17


def test_no_prompt_is_open_unless_asked():
    clips = draw(SHORT, 0, "test", 0, range(120))
    assert [parse(prompt) for prompt in clips.prompts] == clips.attributes


def test_real_clips_show_what_is_asked_and_draw_what_is_open():
    asked = [STAR, replace(STAR, colour=None)]
    seeds = [seed for seed in range(240) for _ in asked]
    clips = real_clips(240 * asked, WORLD, 3, 0, seeds)
    shown = judge(clips, 240 * asked, WORLD)
    assert shown.all_right.all()
    assert torch.equal(clips[::2], render(240 * [STAR], 3, WORLD))
    drawn = shown.shown[1::2, 1].bincount(minlength=len(COLOURS))
    trained = [not replace(STAR, colour=colour).held_out for colour in COLOURS]
    assert trained.count(False) == 1 and not drawn[~torch.tensor(trained)].any(), "none that no model could learn"
    assert (drawn[trained] - 48).abs().max() < 3.5 * 48**0.5, "uniform"


def test_every_open_prompt_has_trained_colours_to_draw():
    asked = [Attributes(symbol, None, motion) for symbol in SYMBOLS for motion in MOTIONS]
    drawn = {_completed(each, 0, seed) for each in asked for seed in range(60)}
    assert drawn == {each for each in COMBINATIONS if not each.held_out}


def test_real_clips_are_addressed_by_prompt_and_seed():
    asked = [replace(STAR, colour=None), replace(STAR, colour=None, symbol="sun")]
    both = real_clips(asked, WORLD, 3, 0, [7, 8])
    assert torch.equal(both, real_clips(asked[::-1], WORLD, 3, 0, [8, 7]).flip(0))
    assert torch.equal(both, real_clips(asked, WORLD, 12, 0, [7, 8])[:, :3])
    many = real_clips(20 * asked[:1], WORLD, 3, 0, list(range(20)))
    assert not torch.equal(many, real_clips(20 * asked[:1], WORLD, 3, 1, list(range(20))))


def test_clips_of_any_phase_begin_at_every_frame_of_the_period_and_change_nothing_else():
    clips, fixed = (draw(world, 3, "any", 0, range(240)) for world in (NATURAL, World(period=20)))
    assert clips.attributes == fixed.attributes and clips.prompts == fixed.prompts
    phases = judge(clips.video, clips.attributes, NATURAL).phase
    assert set(phases.tolist()) == set(range(20))
    assert torch.equal(clips.video, render(clips.attributes, 12, NATURAL, phases.tolist()))


def test_real_clips_of_any_phase_are_right_and_addressed():
    asked = list(COMBINATIONS[::24]) * 4
    seeds = list(range(len(asked)))
    clips = real_clips(asked, NATURAL, 12, 0, seeds)
    assert len(set(judge(clips, asked, NATURAL).phase.tolist())) > 5
    assert torch.equal(clips[::2], real_clips(asked[::2], NATURAL, 12, 0, seeds[::2]))


def test_clips_of_any_phase_are_not_chained():
    assert WORLD.loops and not World(any_phase=True).loops
