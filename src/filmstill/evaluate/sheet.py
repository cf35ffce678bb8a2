"""The comparison sheet: every arm's clip of the same prompt and seed, side by side.

Notable: one palette for the whole GIF and no dithering, so that what does not move costs nothing; the
background is dark because the clips are, and sits as a card on a light page as well as on a dark one.
"""

import math
import textwrap
from functools import cache
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from filmstill.evaluate.results_table import TITLES
from filmstill.runtime.files import replacing

GIF_ENLARGE = 3  # screen pixels a pixel of a small clip
STRIP_ENLARGE = 2
SMALL = 64  # pixels a side
STRIP_PROMPTS = 3
STRIP_EVERY, STRIP_PICTURES = 2, 6  # frames from one picture of the strip to the next; more where there are many
COLOURS = 192  # of the GIF's palette

BACKGROUND = "#161a21"
BRIGHT, DIM = "#e8edf3", "#98a3b0"
MARGIN, GAP = 16, 8
LABEL_WIDTH, LABEL_CHARACTERS, LABEL_LINES = 152, 19, 5
ARM_WIDTH = 92  # the strip's column of arm names
TITLE_HEIGHT = 24


def comparison_sheet(videos: dict[str, Tensor], prompts: list[str], fps: int, gif: Path, png: Path) -> None:
    """Write clips of the same prompts as a looping GIF (a prompt a row, an arm a column) and as a film strip.

    `videos` maps an arm to [N, F, 3, H, W] in [0, 1], clip i of every arm showing prompts[i].
    """
    pictures = {TITLES.get(arm, arm): as_bytes(video) for arm, video in videos.items()}
    frames = min(video.shape[1] for video in pictures.values())
    _save_gif([sheet_frame(pictures, prompts, frame) for frame in range(frames)], fps, gif)
    with replacing(png) as temporary:
        film_strip(pictures, prompts, frames).save(temporary, format="PNG", optimize=True)


def as_bytes(video: Tensor) -> Tensor:
    """[N, F, 3, H, W] in [0, 1], clipped, as bytes [N, F, H, W, 3]; what is not a number is black."""
    return video.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().movedim(2, -1).cpu()


def sheet_frame(pictures: dict[str, Tensor], prompts: list[str], frame: int) -> Image.Image:
    """One frame of the GIF: prompts down, arms across."""
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
    """A few prompts side by side; under each, an arm a row and every few frames one a column."""
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
    """(height, width) of a clip on the sheet, and screen pixels a pixel."""
    height, width = next(iter(pictures.values())).shape[2:4]
    times = enlarge if max(height, width) <= SMALL else 1
    return height * times, width * times, times


def _enlarged(picture: Tensor, times: int) -> Image.Image:
    """Bytes [H, W, 3] as an image, nearest neighbour: a pixel stays a square."""
    return Image.fromarray(picture.repeat_interleave(times, 0).repeat_interleave(times, 1).numpy())


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """`text`, cut at a letter with an ellipsis where it is wider than `width` screen pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return text + "…"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib ships: the same picture on every machine."""
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
            optimize=False,  # it would give every frame a palette of its own
            disposal=1,
        )


def _until(frame: int, fps: int) -> int:
    """Milliseconds before a frame, in the hundredths of a second that a GIF can tell."""
    return round(100 * frame / fps) * 10


def _palette(frames: list[Image.Image]) -> Image.Image:
    """One palette for all frames: the sheet's own greys exactly, the rest chosen from the clips' colours.

    Each distinct colour counts once, or the black of the clips would leave nothing for the digits.
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
    """From the background to a text colour: what the smoothed edges of letters need."""
    ends = list(zip(ImageColor.getrgb(BACKGROUND), ImageColor.getrgb(colour), strict=True))
    return [tuple(round(low + (high - low) * step / (steps - 1)) for low, high in ends) for step in range(steps)]
