"""Faint damages: what the judge refuses, and what it lets pass for some symbols, as measured."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from filmstill.worlds.grammar import Attributes
from filmstill.worlds.judge import Judgement
from filmstill.worlds.symbols import RGB, glyph, path, placed, render
from judged import EVERYTHING, RIGHT, SOME, WORLD, assert_each, decoded, judged, others


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Decoded real clips of SOME, [B, 12, 3, 32, 32]."""
    return decoded(render(SOME, 12, WORLD))


def passed(judgement: Judgement) -> set[str]:
    """Symbols of EVERYTHING of which at least one clip is all right."""
    return {a.symbol for a, right in zip(EVERYTHING, judgement.all_right.tolist(), strict=True) if right}


@pytest.mark.parametrize("brightness", [0.2, 0.3])
def test_a_faint_copy_in_antiphase_is_a_second_symbol(clips: Tensor, brightness: float):
    assert not judged((clips + brightness * clips.roll(6, dims=1)).clamp(0, 1)).right[:, 0].any()


@pytest.mark.parametrize("brightness", [0.2, 0.3])
def test_a_faint_other_symbol_is_a_second_symbol(brightness: float):
    """The next symbol in the next colour and motion."""
    clips, other = (decoded(render(shown, 12, WORLD)) for shown in (EVERYTHING, others(EVERYTHING)))
    assert not judged((clips + brightness * other).clamp(0, 1), EVERYTHING).all_right.any()


@pytest.mark.parametrize(("brightness", "share"), [(0.2, 0.024), (0.3, 0.009)])
def test_a_faint_other_symbol_passes_only_where_it_hides_behind_the_first(brightness: float, share: float):
    """Any other clip at any phase, three times 288. Most that pass have the same track, one is up to 8 pixels off."""
    clips, right = decoded(render(EVERYTHING, 12, WORLD)), []
    for seed in range(3):
        dice = torch.Generator().manual_seed(seed)
        partners = torch.randperm(len(clips), generator=dice).tolist()
        phases = torch.randint(0, 12, (len(clips),), generator=dice).tolist()
        other = torch.stack([clips[n].roll(phase, 0) for n, phase in zip(partners, phases, strict=True)])
        right.append(judged((clips + brightness * other).clamp(0, 1), EVERYTHING).all_right)
    assert torch.cat(right).float().mean().item() == pytest.approx(share, abs=0.001)


@pytest.mark.parametrize(("frame", "swings"), [(1, 0.014), (4, 0), (5, 0.014), (11, 0.014)])
def test_a_faint_ghost_in_one_frame_passes_only_where_it_overlaps(frame: int, swings: float):
    """In frames 1, 5 and 11 the two sides of a swing are only 8 pixels apart; then a few pass."""
    clips = decoded(render(EVERYTHING, 12, WORLD))

    def judgement(brightness: float) -> Judgement:
        video = clips.clone()
        video[:, frame] += brightness * clips[:, frame - 6]
        return judged(video.clamp(0, 1), EVERYTHING)

    turns = torch.tensor([a.motion in ("clockwise", "anticlockwise") for a in EVERYTHING])
    assert not judgement(0.35).right[:, 0].any()
    faint = judgement(0.2)
    assert not faint.right[turns, 0].any()
    assert faint.right[~turns, 0].float().mean().item() == pytest.approx(swings, abs=0.002)
    assert passed(faint) <= {"plane", "sun"}


def test_brightness_that_flickers_is_no_colour(clips: Tensor):
    assert_each(judged((clips * flicker(0.25)).clamp(0, 1)), [True, False, True])
    assert_each(judged((clips * flicker(0.15)).clamp(0, 1)), RIGHT)


def flicker(amplitude: float) -> Tensor:
    return torch.tensor([1 - amplitude, 1 + amplitude] * 6)[:, None, None, None]


def test_a_constant_darkness_is_no_colour(clips: Tensor):
    assert_each(judged(0.72 * clips), [True, False, True])


def cut(off: Callable[[Tensor], Tensor]) -> Tensor:
    """Decoded clips of EVERYTHING whose symbols' inks [16, 16] have lost what `off` removes from their boxes."""
    clips = []
    for shown in EVERYTHING:
        ink = glyph(shown.symbol).clone()
        rows, columns = (ink.amax(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        off(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).zero_()
        places = path(shown.motion, torch.arange(12), WORLD).tolist()
        inks = torch.stack([placed(ink, x, y) for x, y in places])
        clips.append(inks[:, None] * torch.tensor(RGB[str(shown.colour)])[:, None, None])
    return decoded(torch.stack(clips))


def test_a_cut_symbol_passes_only_where_little_ink_is_lost():
    """The tip of a star, a ray of a sun, the rim or the hook of an umbrella."""
    left = judged(cut(lambda ink: ink[:, :3]), EVERYTHING)
    assert left.all_right.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert passed(left) == {"star", "sun", "umbrella"}
    bottom = judged(cut(lambda ink: ink[-4:]), EVERYTHING)
    assert bottom.all_right.float().mean().item() == pytest.approx(0.125, abs=0.01)
    assert passed(bottom) == {"sun", "umbrella"}


def test_coloured_noise_inside_the_symbol_passes_at_02_in_less_than_half(clips: Tensor):
    """The codec keeps too few frequencies of colour to decode such noise."""
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    coloured = (noise - noise.mean(dim=2, keepdim=True)) * (clips.sum(dim=2, keepdim=True) > 0.3)
    assert judged((clips + 0.2 * coloured).clamp(0, 1)).all_right.float().mean() < 0.5
    assert not judged((clips + 0.25 * coloured).clamp(0, 1)).all_right.any()


def test_an_orange_symbol_is_not_yellow():
    yellow = [Attributes(a.symbol, "yellow", a.motion) for a in SOME]
    ink = render(yellow, 12, WORLD)[:, :, :1]  # yellow's red light is 1
    orange = decoded(ink * torch.tensor([1.0, 0.6, 0.1])[:, None, None])
    assert_each(judged(orange, yellow), [True, False, True])
