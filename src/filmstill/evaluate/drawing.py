"""What the sheets share: colours, fonts, the film strip, and GIFs with one palette.

The background is dark, as clips of symbols are; a sheet looks like a card on a light page and on a dark one.
"""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from filmstill.runtime.files import replacing
from filmstill.runtime.image import SMALL, enlarged

BACKGROUND = "#161a21"
BRIGHT, DIM = "#e8edf3", "#98a3b0"
MARGIN, GAP, LINE = 16, 8, 1  # pixels around a sheet, between clips and between the pictures of a film strip
TITLE_HEIGHT = 24
UNCHANGED = 255  # index of a GIF's pixels that are as before: no colour has it
ROUNDED = 16  # colours that differ by less count once in a GIF's palette
CAPTION_CHARACTERS, CAPTION_LINES = 17, 6
PER_ROW = 2  # blocks of a film strip side by side


@dataclass(frozen=True)
class Block:
    """A part of a film strip: its prompt, and one tensor of pictures per row, bytes [C, H, W, 3]; C may differ."""

    prompt: str
    rows: list[Tensor]


def film_strip(
    blocks: list[Block], rows: list[str], columns: list[str], between_rows: int, enlarge: int, note: str = ""
) -> Image.Image:
    """Blocks, two side by side, with the labels of their rows at the left and those of their columns on top."""
    times = magnification(blocks[0].rows[0], enlarge)
    height, width = (side * times for side in blocks[0].rows[0].shape[1:3])
    bold, plain, small = font(13, bold=True), font(13), font(11)
    left = MARGIN + GAP + round(max(bold.getlength(label) for label in rows))
    heading = TITLE_HEIGHT * (2 if columns else 1)
    across = max(len(row) for block in blocks for row in block.rows) * (width + LINE) - LINE
    down = heading + len(rows) * (height + between_rows) - between_rows
    lines = [blocks[start : start + PER_ROW] for start in range(0, len(blocks), PER_ROW)]
    foot = TITLE_HEIGHT if note else 0
    canvas = Image.new(
        "RGB",
        (
            left + min(PER_ROW, len(blocks)) * (across + 2 * GAP) - 2 * GAP + MARGIN,
            MARGIN + len(lines) * (down + 2 * GAP) - 2 * GAP + foot + MARGIN,
        ),
        BACKGROUND,
    )
    pen = ImageDraw.Draw(canvas)
    for line, together in enumerate(lines):
        top = MARGIN + line * (down + 2 * GAP)
        for row, label in enumerate(rows):
            middle = top + heading + row * (height + between_rows) + height / 2
            pen.text((MARGIN, middle), label, BRIGHT, bold, anchor="lm")
        for place, block in enumerate(together):
            x = left + place * (across + 2 * GAP)
            pen.text((x, top + 6), fitted(block.prompt, across, plain), BRIGHT, plain, anchor="lm")
            for column, label in enumerate(columns):
                pen.text((x + column * (width + LINE), top + TITLE_HEIGHT + 6), label, DIM, small, anchor="lm")
            for row, pictures in enumerate(block.rows):
                y = top + heading + row * (height + between_rows)
                for column, picture in enumerate(pictures):
                    canvas.paste(image_of(picture, times), (x + column * (width + LINE), y))
    pen.text((left, canvas.height - MARGIN), note, DIM, small, anchor="lb")
    return canvas


def magnification(pictures: Tensor, times: int) -> int:
    """`times` if pictures [..., H, W, 3] are small, else 1: screen pixels per pixel."""
    return times if max(pictures.shape[-3:-1]) <= SMALL else 1


def image_of(picture: Tensor, times: int) -> Image.Image:
    """Bytes [H, W, 3] as an image, every pixel enlarged to a square."""
    return Image.fromarray(enlarged(picture, times).numpy())


def fitted(text: str, width: int, typeface: ImageFont.FreeTypeFont) -> str:
    """`text`, shortened with an ellipsis if it is wider than `width` screen pixels."""
    if typeface.getlength(text) <= width:
        return text
    while text and typeface.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return text + "…"


def wrapped(prompt: str) -> list[str]:
    """The lines of a caption that fits beside or below a small clip."""
    return textwrap.wrap(prompt, CAPTION_CHARACTERS, max_lines=CAPTION_LINES, placeholder="…")


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib ships, so that pictures are the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf" / name, size)


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def save_gif(
    pictures: Iterable[Image.Image], starts: list[int], fps: int, clips: list[Tensor], colours: int, path: Path
) -> None:
    """Write pictures as a looping GIF with one palette and no dithering.

    Picture i is shown from frame starts[i] to frame starts[i + 1] at `fps`. clips: bytes [..., 3], all that is pasted;
    `colours` (at most 224) of the palette are theirs.
    """
    indexed = _changes(pictures, palette_of(clips, colours))
    with replacing(path) as temporary:
        next(indexed).save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=indexed,
            duration=[_until(end, fps) - _until(start, fps) for start, end in pairwise(starts)],
            loop=0,
            optimize=False,  # True gives every frame its own palette
            transparency=UNCHANGED,
            disposal=1,
        )


def _changes(pictures: Iterable[Image.Image], palette: Image.Image) -> Iterator[Image.Image]:
    """Pictures as indices into the palette, UNCHANGED where a pixel is as in the picture before: a quarter smaller."""
    before = None
    for picture in pictures:
        indices = np.asarray(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        same = np.zeros_like(indices, dtype=bool) if before is None else indices == before
        drawn = Image.fromarray(np.where(same, np.uint8(UNCHANGED), indices))
        drawn.putpalette(palette.getpalette() or [])
        yield drawn
        before = indices


def _until(frame: int, fps: int) -> int:
    """Milliseconds before a frame, rounded to hundredths of a second, the unit of a GIF's durations."""
    return round(100 * frame / fps) * 10


def palette_of(clips: list[Tensor], colours: int) -> Image.Image:
    """One palette for all frames: the sheet's greys exactly, the rest chosen from the colours of clips [..., 3].

    Each distinct colour counts once, whatever its area: otherwise the clips' black would take most of the palette.
    """
    codes = torch.cat([_codes(clip).unique() for clip in clips]).unique()
    distinct = torch.stack([codes // 65536, codes // 256 % 256, codes % 256], dim=-1).byte()
    chosen = Image.fromarray(distinct[None].contiguous().numpy()).quantize(colours, Image.Quantize.MEDIANCUT)
    own = [(0, 0, 0), *_ramp(BRIGHT), *_ramp(DIM)]
    palette = Image.new("P", (1, 1))
    values = [value for colour in own for value in colour] + (chosen.getpalette() or [])
    palette.putpalette(values[: 3 * UNCHANGED])
    return palette


def _codes(pictures: Tensor) -> Tensor:
    """Colours [..., 3], rounded, each as one number."""
    red, green, blue = (pictures // ROUNDED * ROUNDED + ROUNDED // 2).int().unbind(-1)
    return red * 65536 + green * 256 + blue


def _ramp(colour: str, steps: int = 8) -> list[tuple[int, ...]]:
    """Colours from the background to a text colour: those of the smoothed edges of letters."""
    ends = list(zip(ImageColor.getrgb(BACKGROUND), ImageColor.getrgb(colour), strict=True))
    return [tuple(round(low + (high - low) * step / (steps - 1)) for low, high in ends) for step in range(steps)]
