"""The comparison sheet: every arm's clip of the same prompt and seed, side by side, as a GIF and as a film strip.

The GIF has one palette and no dithering, so that still areas add nothing to its size. The background is dark, as clips
of digits are; it looks like a card on a light page and on a dark one.
"""

import math
import textwrap
from functools import cache
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from filmstill.evaluate.metrics import TITLES
from filmstill.runtime.files import replacing

GIF_ENLARGE = 3  # screen pixels per pixel of a small clip, each way
STRIP_ENLARGE = 2
SMALL = 64  # longest side in pixels of a small clip
STRIP_PROMPTS = 3
STRIP_EVERY, STRIP_PICTURES = 2, 6  # least frames from one picture of the strip to the next, most pictures
COLOURS = 192  # in the GIF's palette, beside those of the text

BACKGROUND = "#161a21"
BRIGHT, DIM = "#e8edf3", "#98a3b0"
MARGIN, GAP = 16, 8
LABEL_WIDTH, LABEL_CHARACTERS, LABEL_LINES = 152, 19, 5
ARM_WIDTH = 92  # the strip's column of arm names
TITLE_HEIGHT = 24


def comparison_sheet(videos: dict[str, Tensor], prompts: list[str], fps: int, gif: Path, png: Path) -> None:
    """Write clips of the same prompts as a looping GIF (one row per prompt, one column per arm) and as a film strip.

    `videos` maps an arm to [N, F, 3, H, W] in [0, 1]; clip i of every arm was made from prompts[i].
    """
    pictures = {TITLES.get(arm, arm): as_bytes(video) for arm, video in videos.items()}
    frames = min(video.shape[1] for video in pictures.values())
    _save_gif([sheet_frame(pictures, prompts, frame) for frame in range(frames)], fps, gif)
    with replacing(png) as temporary:
        film_strip(pictures, prompts, frames).save(temporary, format="PNG", optimize=True)


def as_bytes(video: Tensor) -> Tensor:
    """Video [N, F, 3, H, W] in [0, 1], clipped, as bytes [N, F, H, W, 3]; NaN becomes black."""
    return video.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().movedim(2, -1).cpu()


def sheet_frame(pictures: dict[str, Tensor], prompts: list[str], frame: int) -> Image.Image:
    """One frame of the GIF: one row per prompt, one column per arm."""
    height, width, times = _size(pictures, GIF_ENLARGE)
    left, top = MARGIN + LABEL_WIDTH, MARGIN + TITLE_HEIGHT
    canvas = Image.new(
        "RGB",
        (left + len(pictures) * (width + GAP) - GAP + MARGIN, top + len(prompts) * (height + GAP) - GAP + MARGIN),
        BACKGROUND,
    )
    pen = ImageDraw.Draw(canvas)
    for column, (title, clips) in enumerate(pictures.items()):
        x = left + column * (width + GAP)
        pen.text((x + width / 2, MARGIN + 6), title, BRIGHT, _font(13, bold=True), anchor="mm")
        for row, clip in enumerate(clips):
            canvas.paste(_enlarged(clip[frame], times), (x, top + row * (height + GAP)))
    for row, prompt in enumerate(prompts):
        label = textwrap.wrap(prompt, LABEL_CHARACTERS, max_lines=LABEL_LINES, placeholder="…")
        middle = top + row * (height + GAP) + height / 2
        pen.multiline_text((MARGIN, middle), "\n".join(label), DIM, _font(12), anchor="lm", spacing=4)
    return canvas


def film_strip(pictures: dict[str, Tensor], prompts: list[str], frames: int) -> Image.Image:
    """The first prompts side by side; below each, one row per arm and one column per picture, every few frames."""
    height, width, times = _size(pictures, STRIP_ENLARGE)
    every = max(STRIP_EVERY, math.ceil(frames / STRIP_PICTURES))
    shown, prompts = range(0, frames, every), prompts[:STRIP_PROMPTS]
    block = len(shown) * (width + 2) - 2
    left, top = MARGIN + ARM_WIDTH, MARGIN + 2 * TITLE_HEIGHT
    size = (
        left + len(prompts) * (block + 2 * GAP) - 2 * GAP + MARGIN,
        top + len(pictures) * (height + GAP) - GAP + MARGIN,
    )
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for row, (title, clips) in enumerate(pictures.items()):
        y = top + row * (height + GAP)
        pen.text((MARGIN, y + height / 2), title, BRIGHT, _font(13, bold=True), anchor="lm")
        for group in range(len(prompts)):
            for column, frame in enumerate(shown):
                x = left + group * (block + 2 * GAP) + column * (width + 2)
                canvas.paste(_enlarged(clips[group, frame], times), (x, y))
    for group, prompt in enumerate(prompts):
        x = left + group * (block + 2 * GAP)
        pen.text((x, MARGIN + 6), _fitted(prompt, block, _font(13)), BRIGHT, _font(13), anchor="lm")
        for column, frame in enumerate(shown):
            number = f"frame {frame}" if column == 0 else str(frame)
            pen.text((x + column * (width + 2), MARGIN + TITLE_HEIGHT + 6), number, DIM, _font(11), anchor="lm")
    return canvas


def _size(pictures: dict[str, Tensor], enlarge: int) -> tuple[int, int, int]:
    """(height, width) of a clip on the sheet, and screen pixels per pixel."""
    height, width = next(iter(pictures.values())).shape[2:4]
    times = enlarge if max(height, width) <= SMALL else 1
    return height * times, width * times, times


def _enlarged(picture: Tensor, times: int) -> Image.Image:
    """Bytes [H, W, 3] as an image, enlarged by nearest neighbour."""
    return Image.fromarray(picture.repeat_interleave(times, 0).repeat_interleave(times, 1).numpy())


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """`text`, shortened with an ellipsis if it is wider than `width` screen pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return text + "…"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib ships, so that pictures are the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf" / name, size)


def _save_gif(frames: list[Image.Image], fps: int, path: Path) -> None:
    palette = _palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as temporary:
        indexed[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=[_until(frame + 1, fps) - _until(frame, fps) for frame in range(len(frames))],
            loop=0,
            optimize=False,  # True gives every frame its own palette
            disposal=1,
        )


def _until(frame: int, fps: int) -> int:
    """Milliseconds before a frame, rounded to hundredths of a second, the unit of a GIF's durations."""
    return round(100 * frame / fps) * 10


def _palette(frames: list[Image.Image]) -> Image.Image:
    """One palette for all frames: the sheet's greys exactly, the rest chosen from the clips' colours.

    Each distinct colour counts once, whatever its area: otherwise the clips' black would take most of the palette.
    """
    pixels = torch.stack([torch.frombuffer(bytearray(frame.tobytes()), dtype=torch.uint8) for frame in frames])
    red, green, blue = (pixels.view(-1, 3) // 4 * 4 + 2).int().unbind(-1)
    codes = torch.unique(red * 65536 + green * 256 + blue)
    distinct = torch.stack([codes // 65536, codes // 256 % 256, codes % 256], dim=-1).byte()
    chosen = Image.fromarray(distinct[None].contiguous().numpy()).quantize(COLOURS, Image.Quantize.MEDIANCUT)
    own = [(0, 0, 0), *_ramp(BRIGHT), *_ramp(DIM)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in own for value in colour] + (chosen.getpalette() or []))
    return palette


def _ramp(colour: str, steps: int = 8) -> list[tuple[int, ...]]:
    """Colours from the background to a text colour: those of the smoothed edges of letters."""
    ends = list(zip(ImageColor.getrgb(BACKGROUND), ImageColor.getrgb(colour), strict=True))
    return [tuple(round(low + (high - low) * step / (steps - 1)) for low, high in ends) for step in range(steps)]
