"""The embedded world: one symbol of a font, in one colour, in one periodic motion.

The symbols are glyphs of DejaVu Sans, the font that matplotlib ships. They move by whole pixels; all motions are
periodic, so a stream has no end. A clip begins at phase 0, so that one of a whole number of periods loops, or, with
world.any_phase, at any frame of the period.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.worlds.grammar import COMBINATIONS, SYMBOLS, Attributes
from filmstill.worlds.sentences import sentence

Choice = TypeVar("Choice")

SIZE = 32  # height and width of a frame in pixels
BOX = 16  # height and width of the box that a symbol is centred in
REACH = (SIZE - BOX) // 2  # most pixels that the box can move from the middle, each way
GLYPHS = dict(zip(SYMBOLS, "★♥♣☀☂✈☎⚓♞♫⚑☻", strict=True))
GLYPH_SIZE = 15  # the longer side of a glyph in pixels
OVERSAMPLING = 16  # a glyph is drawn this many times larger, then averaged
RGB = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.15, 0.25, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "magenta": (0.95, 0.1, 0.9),
    "cyan": (0.1, 0.9, 0.95),
}


@dataclass(frozen=True)
class Clips:
    """Drawn clips: `video` [B, F, 3, 32, 32] in [0, 1], their prompts, and the attributes that they show."""

    video: Tensor
    prompts: list[str]
    attributes: list[Attributes]


@cache
def glyph(symbol: str) -> Tensor:
    """The symbol's ink [16, 16] in [0, 1], centred in its box."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 400)
    left, top, right, bottom = font.getbbox(GLYPHS[symbol])
    drawn = Image.new("L", (math.ceil(right - left) + 4, math.ceil(bottom - top) + 4))
    ImageDraw.Draw(drawn).text((2 - left, 2 - top), GLYPHS[symbol], font=font, fill=255)
    drawn = drawn.crop(drawn.getbbox())
    scale = GLYPH_SIZE * OVERSAMPLING / max(drawn.size)
    drawn = drawn.resize((round(drawn.width * scale), round(drawn.height * scale)), Image.Resampling.LANCZOS)
    side = BOX * OVERSAMPLING
    large = Image.new("L", (side, side))
    large.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    ink = torch.from_numpy(np.array(large)).float() / 255
    return F.avg_pool2d(ink[None], OVERSAMPLING)[0]


def path(motion: str, frames: Tensor, world: World) -> Tensor:
    """The symbol's centre at `frames` [F], whole pixels from the picture's, x to the right and y down: int [F, 2]."""
    angle = frames.double() * (2 * math.pi / world.period)
    sine, cosine = angle.sin(), angle.cos()
    zero = torch.zeros_like(angle)
    xy = {
        "sways": (sine, zero),
        "bobs": (zero, sine),
        "clockwise": (sine, -cosine),  # y points down: from the top to the right
        "anticlockwise": (-sine, -cosine),
    }[motion]
    # Halves are rounded away from 0, so that a swing to the left mirrors the one to the right.
    pixels = world.amplitude * torch.stack(xy, dim=-1)
    return (pixels.sign() * (pixels.abs() + 0.5 + 1e-9).floor()).long()


def placed(ink: Tensor, x: int, y: int) -> Tensor:
    """A symbol's ink [16, 16] with its centre x pixels right of and y below the picture's: [32, 32]."""
    picture = torch.zeros(SIZE, SIZE)
    picture[REACH + y : REACH + y + BOX, REACH + x : REACH + x + BOX] = ink
    return picture


def render(attributes: list[Attributes], frames: int, world: World, first_frame: int | list[int] = 0) -> Tensor:
    """Ideal clips [B, frames, 3, 32, 32] in [0, 1], from frame `first_frame`, of all or of each, of the motions on."""
    first_frames = [first_frame] * len(attributes) if isinstance(first_frame, int) else first_frame
    inks, colours = [], []
    for shown, first in zip(attributes, first_frames, strict=True):
        assert shown.colour is not None  # a clip has one
        ink, places = glyph(shown.symbol), path(shown.motion, torch.arange(first, first + frames), world).tolist()
        inks.append(torch.stack([placed(ink, x, y) for x, y in places]))
        colours.append(torch.tensor(RGB[shown.colour]))
    return torch.stack(inks)[:, :, None] * torch.stack(colours)[:, None, :, None, None]


def draw(world: World, seed: int, purpose: str, step: int, samples: range, open_share: float = 0.0) -> Clips:
    """Draw one clip per sample index; (seed, purpose, step, sample) address what it shows and its sentence.

    Symbols take turns; colours and motions are drawn among combinations that are not held out.
    open_share: share of clips whose prompt leaves the colour open.
    """
    attributes, prompts, first_frames = [], [], []
    for sample in samples:
        dice = randomness.generator(seed, purpose, step, sample)
        symbol = SYMBOLS[(step * len(samples) + sample) % len(SYMBOLS)]
        shown = _pick(_trained(symbol), dice)
        attributes.append(shown)
        is_open = torch.rand((), generator=dice).item() < open_share
        prompts.append(sentence(replace(shown, colour=None) if is_open else shown, dice))
        first_frames.append(_first_frame(world, dice))
    return Clips(render(attributes, world.frames, world, first_frames), prompts, attributes)


def real_clips(asked: list[Attributes], world: World, frames: int, seed: int, seeds: list[int]) -> Tensor:
    """Clips that a perfect model might generate, [B, frames, 3, 32, 32] in [0, 1].

    A colour that a prompt leaves open is drawn uniformly among those that are trained on with its symbol and motion,
    addressed by (seed, seeds[i], asked[i]), and so is the phase that it begins at.
    """
    shown = [_completed(a, seed, clip_seed) for a, clip_seed in zip(asked, seeds, strict=True)]
    phases = [
        _first_frame(world, randomness.generator(seed, "real/phase", clip_seed, *asdict(a).values()))
        for a, clip_seed in zip(shown, seeds, strict=True)
    ]
    return render(shown, frames, world, phases)


@cache
def _trained(symbol: str) -> list[Attributes]:
    """The combinations of a symbol that are not held out."""
    return [each for each in COMBINATIONS if each.symbol == symbol and not each.held_out]


def _completed(asked: Attributes, seed: int, clip_seed: int) -> Attributes:
    """`asked`, or a trained combination of its symbol and motion if it leaves the colour open.

    There are five or six of them: at most one colour of a symbol and a motion is held out.
    """
    if not asked.open:
        return asked
    choices = [each for each in _trained(asked.symbol) if each.motion == asked.motion]
    return _pick(choices, randomness.generator(seed, "real", clip_seed, asked.symbol, asked.motion))


def _first_frame(world: World, dice: torch.Generator) -> int:
    """The frame of its motion that a clip begins at."""
    return _pick(range(world.period), dice) if world.any_phase else 0


def _pick(choices: Sequence[Choice], dice: torch.Generator) -> Choice:
    return choices[int(torch.randint(len(choices), (), generator=dice))]
