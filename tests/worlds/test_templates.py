"""Every symbol in every colour at every place: through the codec it equals its ideal, as drawn it is near."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.worlds.grammar import COLOURS, SYMBOLS
from filmstill.worlds.judge import Frames, look_at
from filmstill.worlds.symbols import RGB, glyph, placed
from filmstill.worlds.templates import places, rgb_of_ideals
from judged import decoded


@pytest.fixture(scope="module")
def drawn() -> list[Tensor]:
    """Per symbol, its pictures in every colour at every place: [6, 289, 3, 32, 32]."""
    rgb = torch.tensor([RGB[name] for name in COLOURS])[:, None, :, None, None]
    return [torch.stack([placed(glyph(s), x, y) for x, y in places().tolist()])[:, None] * rgb for s in SYMBOLS]


def assert_found(frames: Frames, symbol: int) -> None:
    """Symbol, place and colour of every picture are its own."""
    assert (frames.correlations.argmax(dim=2) == symbol).all()
    assert torch.equal(frames.track(), places().double().expand(len(COLOURS), -1, -1))
    assert torch.equal(frames.colour, torch.arange(len(COLOURS))[:, None].expand_as(frames.colour))


def test_decoded_pictures_equal_their_ideals(drawn: list[Tensor]):
    for symbol, pictures in enumerate(drawn):
        frames = look_at(decoded(pictures))
        assert_found(frames, symbol)
        for error in (frames.colour_distance, frames.brightness - 1, frames.spot, frames.beside):
            assert error.abs().max() < 1e-5


def test_drawn_pictures_have_the_codec_s_own_loss(drawn: list[Tensor]):
    seen = [look_at(pictures) for pictures in drawn]
    for symbol, frames in enumerate(seen):
        assert_found(frames, symbol)
        assert (frames.brightness - 1).abs().max() < 0.03 and frames.beside.max() < 0.24
    assert max(frames.spot.max() for frames in seen) == pytest.approx(0.036, abs=5e-4)
    assert max(frames.colour_distance.max() for frames in seen) == pytest.approx(0.214, abs=5e-4)


def test_no_two_colours_of_ideals_are_near():
    """More than three times the distance that the judge allows."""
    unit = F.normalize(rgb_of_ideals(), dim=3)
    distances = [(unit[:, :, a] - unit[:, :, b]).norm(dim=2).min() for a, b in product(range(len(COLOURS)), repeat=2)]
    assert min(distance for distance in distances if distance > 0) == pytest.approx(0.372, abs=5e-4)
