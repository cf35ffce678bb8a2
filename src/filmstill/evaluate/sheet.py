"""The comparison sheet: every arm's clip of the same prompt and seed, side by side, as a GIF and as a film strip."""

import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from filmstill.evaluate.drawing import (
    BACKGROUND,
    BRIGHT,
    DIM,
    GAP,
    MARGIN,
    TITLE_HEIGHT,
    Block,
    film_strip,
    font,
    image_of,
    magnification,
    save_gif,
    save_png,
    wrapped,
)
from filmstill.evaluate.metrics import TITLES
from filmstill.runtime.image import as_bytes

GIF_ENLARGE = 4  # screen pixels per pixel of a small clip, each way
GIF_COLOURS = 192
STRIP_ENLARGE = 3
STRIP_PROMPTS = 4
STRIP_EVERY, STRIP_PICTURES = 2, 6  # least frames from one picture of the strip to the next, most pictures
LABEL_WIDTH = 124


def comparison_sheet(
    videos: dict[str, Tensor], prompts: list[str], fps: int, gif: Path, png: Path, scores: Mapping[str, str] = {}
) -> None:
    """Write clips of the same prompts as a looping GIF (one row per prompt, one column per arm) and as a film strip.

    `videos` maps an arm to [N, F, 3, H, W] in [0, 1]; clip i of every arm was made from prompts[i]. scores: by arm,
    what is shown beside its title.
    """
    pictures = {f"{TITLES.get(arm, arm)} {scores.get(arm, '')}".rstrip(): as_bytes(v) for arm, v in videos.items()}
    frames = min(video.shape[1] for video in pictures.values())
    drawn = (sheet_frame(pictures, prompts, frame) for frame in range(frames))
    save_gif(drawn, list(range(frames + 1)), fps, list(pictures.values()), GIF_COLOURS, gif)
    save_png(strip(pictures, prompts, frames), png)


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
        pen.text((x + width / 2, MARGIN + 6), title, BRIGHT, font(13, bold=True), anchor="mm")
        for row, clip in enumerate(clips):
            canvas.paste(image_of(clip[frame], times), (x, top + row * (height + GAP)))
    for row, prompt in enumerate(prompts):
        label = wrapped(prompt)
        middle = top + row * (height + GAP) + height / 2
        pen.multiline_text((MARGIN, middle), "\n".join(label), DIM, font(12), anchor="lm", spacing=4)
    return canvas


def strip(pictures: dict[str, Tensor], prompts: list[str], frames: int) -> Image.Image:
    """The first of the prompts, one block each: one row per arm, one column per picture, every few frames."""
    every = max(STRIP_EVERY, math.ceil(frames / STRIP_PICTURES))
    blocks = [
        Block(prompt, [clips[index, :frames:every] for clips in pictures.values()])
        for index, prompt in enumerate(prompts[:STRIP_PROMPTS])
    ]
    columns = [f"frame {frame}" if frame == 0 else str(frame) for frame in range(0, frames, every)]
    return film_strip(blocks, list(pictures), columns, GAP, STRIP_ENLARGE)


def _size(pictures: dict[str, Tensor], enlarge: int) -> tuple[int, int, int]:
    """(height, width) of a clip on the sheet, and screen pixels per pixel."""
    clips = next(iter(pictures.values()))
    times = magnification(clips, enlarge)
    return clips.shape[2] * times, clips.shape[3] * times, times
