"""The judge is as strict as the eye: right about every decoded real clip, and about nothing that is not one."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.params.world import World
from filmstill.worlds import judge as judging
from filmstill.worlds.grammar import ATTRIBUTES, COLOURS, MOTIONS, SYMBOLS, Attributes
from filmstill.worlds.judge import judge_frames, look_at
from filmstill.worlds.symbols import REACH, RGB, glyph, placed, render
from judged import CODEC, EVERYTHING, RIGHT, SOME, WORLD, WRONG, assert_each, decoded, judged, others

WORLDS = [WORLD, World(amplitude=8.0, period=24), World(amplitude=5.0, period=22), World(amplitude=4.0, period=4)]


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Decoded real clips of SOME, [B, 12, 3, 32, 32]."""
    return decoded(render(SOME, 12, WORLD))


@pytest.mark.parametrize("first_frame", [0, 5, 10, 31])
def test_every_decoded_real_clip_is_right_at_any_phase(first_frame: int):
    video = decoded(render(EVERYTHING, 12, WORLD, first_frame))
    judgement = judged(video, EVERYTHING)
    assert_each(judgement, RIGHT)
    assert judgement.all_right.all()
    assert judgement.phase.tolist() == len(EVERYTHING) * [first_frame % WORLD.period]
    expected = [[SYMBOLS.index(a.symbol), COLOURS.index(a.colour), MOTIONS.index(a.motion)] for a in EVERYTHING]
    assert judgement.shown.tolist() == expected


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_windows_of_a_stream_are_right_at_their_phases(world: World):
    frames = look_at(decoded(render(SOME, 48, world)))
    for start in (0, 3, 6, 17, 36):
        judgement = judge_frames(frames.window(start, start + 12), SOME, world)
        assert judgement.all_right.all()
        assert (judgement.phase == start % world.period).all()


def test_a_window_is_judged_as_the_clip_that_it_is():
    video = decoded(render(SOME, 30, WORLD))
    window = judge_frames(look_at(video).window(7, 19), SOME, WORLD)
    clip = judged(video[:, 7:19])
    assert torch.equal(window.shown, clip.shown) and torch.equal(window.phase, clip.phase)
    torch.testing.assert_close(window.fidelity, clip.fidelity)


def test_frames_may_be_compared_in_any_chunks(clips: Tensor, monkeypatch: pytest.MonkeyPatch):
    whole = look_at(clips)
    monkeypatch.setattr(judging, "FRAMES_AT_ONCE", 100)
    parts = look_at(clips)
    assert torch.equal(whole.places, parts.places)
    for name in ("correlations", "rgb", "brightness", "spot", "beside"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name))


def test_shuffled_prompts_are_wrong(clips: Tensor):
    assert_each(judged(clips, others(SOME)), WRONG)
    for column, name in enumerate(ATTRIBUTES):
        asked = [replace(a, **{name: getattr(b, name)}) for a, b in zip(SOME, others(SOME), strict=True)]
        assert_each(judged(clips, asked), [each != column for each in range(3)])


@pytest.mark.parametrize("frame", [0, 3, 5])
def test_a_frozen_clip_does_not_move(clips: Tensor, frame: int):
    frozen = clips[:, frame : frame + 1].expand_as(clips)
    assert_each(judged(frozen), [True, True, False])


def test_a_clip_whose_second_half_is_another_clips_is_neither(clips: Tensor):
    changed = decoded(render(others(SOME), 12, WORLD))
    halves = torch.cat([clips[:, :6], changed[:, 6:]], dim=1)
    for asked in (SOME, others(SOME)):
        assert_each(judged(halves, asked), WRONG)
    assert not judged(halves, [replace(a, colour=None) for a in SOME]).all_right.any()


def test_swapped_halves_of_a_loop_are_a_clip_half_a_period_later(clips: Tensor):
    judgement = judged(clips.roll(6, dims=1))
    assert judgement.all_right.all() and (judgement.phase == 6).all()


def test_a_clip_whose_phase_jumps_has_no_motion(clips: Tensor):
    assert_each(judged(torch.cat([clips[:, :6], clips[:, 9:], clips[:, :3]], dim=1)), [True, True, False])


def test_a_clip_played_backwards_turns_the_other_way(clips: Tensor):
    judgement = judged(clips.flip(1))
    turns = torch.tensor([a.motion in ("clockwise", "anticlockwise") for a in SOME])
    assert not judgement.right[turns, 2].any()
    assert judgement.right[~turns].all(), "a swing backwards is a swing"


@pytest.mark.parametrize("pair", [(4, 5), (3, 7), (5, 6), (1, 7)])
def test_two_swapped_frames_are_out_of_place(clips: Tensor, pair: tuple[int, int]):
    """Their symbols are two pixels apart or more, unlike neighbouring frames where a swing turns round."""
    swapped = clips.clone()
    swapped[:, pair] = clips[:, pair[::-1]]
    assert_each(judged(swapped), [True, True, False])


@pytest.mark.parametrize("frame", [1, 4, 11])
def test_one_ghosted_frame_spoils_a_clip(clips: Tensor, frame: int):
    ghosted = clips.clone()
    ghosted[:, frame] = (clips[:, frame] + clips[:, frame - 6]) / 2
    assert not judged(ghosted).all_right.any()
    ghosted[:, frame] = (clips[:, frame] + clips.roll(1, dims=0)[:, frame]) / 2
    assert not judged(ghosted).all_right.any()


@pytest.mark.parametrize("frames", [slice(0, 12), slice(7, 8)], ids=["all frames", "one frame"])
def test_a_3x3_blur_of_any_symbol_fails(frames: slice):
    blurred = decoded(render(EVERYTHING, 12, WORLD))
    blurred[:, frames] = F.avg_pool2d(blurred[:, frames].flatten(0, 1), 3, stride=1, padding=1).view_as(
        blurred[:, frames]
    )
    judgement = judged(blurred, EVERYTHING)
    assert not judgement.right[:, 0].any() and judgement.right[:, 2].all()
    thin = torch.tensor([a.symbol in ("anchor", "note") for a in EVERYTHING])
    assert torch.equal(judgement.right[:, 1], ~thin), "a blur darkens thin lines by more than a quarter, others by less"


def test_noise_and_emptiness_show_nothing():
    dice = torch.Generator().manual_seed(0)
    shape = (20, 12, 3, 32, 32)
    for video in (
        torch.rand(shape, generator=dice),
        (0.3 * torch.randn(shape, generator=dice)).clamp(0, 1),
        CODEC.decode(torch.randn(20, 12, 16, 8, 8, generator=dice)),
        torch.zeros(shape),
        torch.ones(shape),
        torch.full(shape, float("nan")),
        torch.full(shape, float("inf")),
    ):
        judgement = judged(video, 20 * [Attributes("star", None, "bobs")])
        assert_each(judgement, WRONG)
        assert (judgement.shown == -1).all() and judgement.fidelity.isfinite().all()


def test_a_frame_that_is_not_a_number_is_black(clips: Tensor):
    broken, black = clips.clone(), clips.clone()
    broken[:, 3], black[:, 3] = float("nan"), 0
    assert_each(judged(broken), WRONG)
    assert torch.equal(judged(broken).fidelity, judged(black).fidelity)


def test_half_the_brightness_is_no_colour(clips: Tensor):
    assert_each(judged(clips / 2), [True, False, True])
    assert_each(judged(0.85 * clips), RIGHT)  # 0.8 is the limit itself, where rounding decides


def test_a_haze_hides_the_symbol(clips: Tensor):
    assert not judged(0.8 * clips + 0.2).right[:, 0].any()


@pytest.mark.parametrize(
    "rgb", [(0.6, 0.6, 0.6), (1.0, 0.45, 0.1), (0.55, 0.17, 1.0)], ids=["grey", "orange", "violet"]
)
def test_a_colour_between_two_is_none(rgb: tuple[float, float, float]):
    red = [replace(a, colour="red") for a in SOME]  # red light is the whole of a symbol's ink
    video = decoded(render(red, 12, WORLD)[:, :, :1] * torch.tensor(rgb)[:, None, None])
    judgement = judged(video, [replace(a, colour=None) for a in SOME])
    assert_each(judgement, [True, False, True])
    assert (judgement.shown[:, 1] == -1).all()


def test_a_symbol_off_its_path_does_not_move_as_asked():
    off, near = (shifted(SOME, pixels) for pixels in (2, 1))
    assert_each(judged(off), [True, True, False])
    assert_each(judged(near), RIGHT)


def shifted(asked: list[Attributes], pixels: int) -> Tensor:
    """Decoded clips in which one frame's symbol is off its path, towards the middle of the picture."""
    video = render(asked, 12, WORLD)
    for clip, shown in zip(video, asked, strict=True):
        x, y = judging.path(str(shown.motion), torch.tensor([2]), WORLD)[0].tolist()
        x, y = (x - pixels * (1 if x > 0 else -1), y) if x else (x, y - pixels * (1 if y > 0 else -1))
        assert max(abs(x), abs(y)) <= REACH
        clip[2] = placed(glyph(str(shown.symbol)), x, y) * torch.tensor(RGB[str(shown.colour)])[:, None, None]
    return decoded(video)


def test_an_open_prompt_accepts_any_colour_but_needs_one(clips: Tensor):
    assert_each(judged(clips, [replace(a, colour=None) for a in others(SOME)]), [False, True, False])
    asked = [replace(a, colour=None) for a in SOME]
    full = judged(clips)
    judgement = judged(clips, asked)
    assert judgement.all_right.all() and torch.equal(judgement.shown, full.shown)
    torch.testing.assert_close(judgement.fidelity, full.fidelity)


def test_fidelity_falls_with_every_bit_of_noise_from_the_ceiling_of_the_codec(clips: Tensor):
    dice = torch.Generator().manual_seed(0)
    noise = torch.randn(clips.shape, generator=dice)
    levels = [judged((clips + level * noise).clamp(0, 1)).fidelity for level in (0, 0.01, 0.02, 0.05, 0.1, 0.2)]
    assert all((more > less).all() for more, less in pairwise(levels))
    assert levels[0].min() > 25 and 28 < levels[0].mean() < 29, "the codec's own loss"
    assert levels[-1].mean() < 17


def test_fidelity_is_that_of_the_best_phase_and_at_most_60_db():
    ideal = render(SOME, 12, WORLD)
    assert judged(ideal).fidelity.tolist() == pytest.approx(len(SOME) * [60.0])
    assert judged(render(SOME, 12, WORLD, 7)).fidelity.tolist() == pytest.approx(len(SOME) * [60.0])
    assert judged(ideal, others(SOME)).fidelity.max() < 25


def test_fidelity_is_a_psnr():
    grey = render(SOME, 12, WORLD) * 0.9
    error = (0.1 * render(SOME, 12, WORLD)).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(judged(grey).fidelity, -10 * error.log10(), rtol=1e-3, atol=0)
