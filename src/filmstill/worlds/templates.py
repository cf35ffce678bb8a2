"""The symbols seen through the codec: what the judge compares frames with.

A template is a white symbol at one place, an ideal a symbol at one place in one of the named colours. Every decoded
frame of a real clip equals an ideal.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.models.codec import DctCodec
from filmstill.worlds.grammar import COLOURS, SYMBOLS
from filmstill.worlds.symbols import REACH, RGB, glyph, placed

ROW = range(-REACH, REACH + 1)
CODEC = DctCodec(torch.zeros(16), torch.ones(()))  # the codec's blur does not depend on its normalisation


@dataclass(frozen=True)
class Templates:
    """White symbols at every place.

    ink: as drawn, [12, 289, 32, 32]. luma, details: seen through the codec, unit vectors [12, 289, 1024]. size: of the
    luma, [12, 289].
    """

    ink: Tensor
    luma: Tensor
    details: Tensor
    size: Tensor

    def rgb(self, pictures: Tensor, symbol: Tensor, place: Tensor) -> Tensor:
        """Colour of pictures [N, 3, 32, 32] by least squares of their templates (indices [N]): [N, 3]."""
        white = self.luma[symbol, place]
        return torch.einsum("ncd,nd->nc", pictures.flatten(2), white) / self.size[symbol, place][:, None]

    def ideals(self, symbol: Tensor, place: Tensor, colour: Tensor) -> Tensor:
        """Each symbol at its place in its colour (indices [N]): [N, 3, 32, 32]."""
        return seen(self.ink[symbol, place][:, None] * named_colours()[colour][..., None, None])


def seen(pictures: Tensor) -> Tensor:
    """Pictures [N, 3, 32, 32] through the codec."""
    return CODEC.decode(CODEC.encode(pictures[:, None]))[:, 0]


def details_of(luma: Tensor) -> Tensor:
    """Frames [N, 32, 32] less the mean of each pixel's 3x3 neighbours, as unit vectors [N, 1024]."""
    return F.normalize((luma - F.avg_pool2d(luma, 3, stride=1, padding=1)).flatten(1), dim=1, eps=1e-6)


@cache
def places() -> Tensor:
    """The whole-pixel places of a template, (x, y) from the picture's centre: int [289, 2]."""
    return torch.tensor(list(product(ROW, ROW)))


def place_index(at: Tensor) -> Tensor:
    """Indices into `places()` of whole-pixel places [..., 2]: [...]."""
    column, row = (at.long() + REACH).unbind(dim=-1)
    return column * len(ROW) + row


@cache
def named_colours() -> Tensor:
    """RGB of COLOURS, [6, 3]."""
    return torch.tensor([RGB[name] for name in COLOURS])


@cache
def templates() -> Templates:
    """The templates of all symbols at all places."""
    ink = torch.stack([placed(glyph(symbol), x, y) for symbol in SYMBOLS for x, y in places().tolist()])
    white = seen(ink[:, None].expand(-1, 3, -1, -1)).mean(dim=1)  # [N, 32, 32]
    flat = white.flatten(1)
    parts = (ink, F.normalize(flat, dim=1), details_of(white), flat.norm(dim=1))
    return Templates(*(part.unflatten(0, (len(SYMBOLS), -1)) for part in parts))


@cache
def rgb_of_ideals() -> Tensor:
    """`Templates.rgb` of all ideals, [12, 289, 6, 3]: the codec moves the colours of thin symbols by up to 0.2."""
    place = torch.arange(len(places()))
    found = torch.empty(len(SYMBOLS), len(place), len(COLOURS), 3)
    for symbol, colour in product(range(len(SYMBOLS)), range(len(COLOURS))):
        which = torch.full_like(place, symbol), place
        ideals = templates().ideals(*which, torch.full_like(place, colour))
        found[symbol, :, colour] = templates().rgb(ideals, *which)
    return found
