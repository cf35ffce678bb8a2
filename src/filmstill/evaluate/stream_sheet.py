"""Pictures of long streams: a film strip of whole windows from the first to the last, and a GIF of the streams.

A motion whose period is the window is in the same place all down a column of the strip: a stream that loses its phase,
its symbol or its sharpness breaks the column.
"""

import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from filmstill.evaluate.drawing import (
    BACKGROUND,
    BRIGHT,
    DIM,
    GAP,
    LINE,
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
from filmstill.runtime.image import as_bytes, shrunk, spread

HEIGHT = 72  # pixels of a frame at most; taller frames are scaled down
STRIP_PROMPTS = 4
STRIP_ENLARGE = 2  # screen pixels per pixel of a small clip, each way
STRIP_WIDTH, STRIP_HEIGHT = 780, 650  # screen pixels that the pictures of one prompt may take
GIF_PROMPTS, GIF_COLUMNS = 8, 4
GIF_ENLARGE = 3
GIF_COLOURS = 64  # with 192 the file is a third larger, and looks the same
GIF_PIXELS = 2_000_000  # of all clips' frames: 8 streams of 240 frames of 32x32; of larger clips fewer frames are shown
LABEL_WIDTH = 112


def stream_sheet(
    video: Tensor, prompts: list[str], fps: int, gif: Path, png: Path, window: int, score: str = "", beginning: int = 1
) -> None:
    """Write streams [N, F, 3, H, W] in [0, 1], one per prompt, as a film strip and as a looping GIF.

    The strip shows the first prompts in rows of `window` frames, as many as fit: `beginning` windows without a gap,
    then others, evenly spread over the rest. The GIF shows more prompts at `fps`. Frames higher than HEIGHT are scaled
    down. Both pictures state which frames they leave out, and the `score` of all streams.
    """
    save_png(strip(video[:STRIP_PROMPTS], prompts[:STRIP_PROMPTS], window, score, beginning), png)
    save_streams(video[:GIF_PROMPTS], prompts[:GIF_PROMPTS], fps, score, gif)


def strip(video: Tensor, prompts: list[str], window: int, score: str, beginning: int) -> Image.Image:
    """The film strip: one block per prompt, one row per shown window."""
    frames = video.shape[1]
    window = min(window, frames)
    starts, offsets = shown(frames, window, *_size(video, STRIP_ENLARGE)[:2], beginning)
    rows = [[start + offset for offset in offsets if start + offset < frames] for start in starts]
    blocks = [
        Block(prompt, [_small(stream, row) for row in rows]) for stream, prompt in zip(video, prompts, strict=True)
    ]
    labels = [f"{start} – {min(start + window, frames) - 1}" for start in starts]
    note = f"{note_of(frames, window, len(starts), len(offsets))} {score}"
    return film_strip(blocks, labels, [], LINE, STRIP_ENLARGE, note.rstrip())


def shown(frames: int, window: int, height: int, width: int, beginning: int = 1) -> tuple[list[int], list[int]]:
    """First frames of the windows that the strip shows, and offsets of the frames shown of each.

    height, width: screen pixels of a picture. beginning: first windows that are shown without a gap.
    """
    rows, columns = max(2, STRIP_HEIGHT // (height + LINE)), STRIP_WIDTH // (width + LINE)
    count = math.ceil(frames / window)
    dense = min(beginning, rows - 1, count) - 1
    indices = [*range(dense), *(dense + index for index in spread(count - dense, rows - dense))]
    return [window * index for index in indices], spread(window, max(2, columns))


def note_of(frames: int, window: int, rows: int, columns: int) -> str:
    """What the strip shows of the streams."""
    every = "every frame" if columns == window else f"{columns} frames"
    return f"Streams of {frames} frames: {rows} of {math.ceil(frames / window)} windows of {window}, {every} of each."


def save_streams(video: Tensor, prompts: list[str], fps: int, score: str, path: Path) -> None:
    """The GIF: all streams side by side with the number of the frame; of large clips, frames are left out."""
    frames, (height, width, times) = video.shape[1], _size(video, GIF_ENLARGE)
    pixels = len(video) * frames * height * width // times**2
    every = math.ceil(pixels / GIF_PIXELS)
    starts = list(range(0, frames, every))
    clips = [_small(stream, starts) for stream in video]
    canvas, places = _captioned(prompts, height, width)

    def picture(index: int) -> Image.Image:
        drawn = canvas.copy()
        text = f"frame {starts[index]} of {frames}" + (f", 1 in {every} shown" if every > 1 else "")
        text += f". {score}" if score else ""
        ImageDraw.Draw(drawn).text((MARGIN, MARGIN + 6), text, BRIGHT, font(13, bold=True), anchor="lm")
        for clip, place in zip(clips, places, strict=True):
            drawn.paste(image_of(clip[index], times), place)
        return drawn

    save_gif((picture(index) for index in range(len(starts))), [*starts, frames], fps, clips, GIF_COLOURS, path)


def _captioned(prompts: list[str], height: int, width: int) -> tuple[Image.Image, list[tuple[int, int]]]:
    """The GIF's background with the prompts, and the corners of the pictures above them."""
    labels = [wrapped(prompt) for prompt in prompts]
    down, across = height + GAP + 14 * max(map(len, labels)) + GAP, max(width, LABEL_WIDTH) + GAP
    columns, top = min(GIF_COLUMNS, len(prompts)), MARGIN + TITLE_HEIGHT
    places = [(MARGIN + index % columns * across, top + index // columns * down) for index in range(len(prompts))]
    size = (2 * MARGIN + columns * across - GAP, top + math.ceil(len(prompts) / columns) * down - GAP + MARGIN)
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for label, (x, y) in zip(labels, places, strict=True):
        pen.multiline_text((x, y + height + 6), "\n".join(label), DIM, font(11), spacing=3)
    return canvas, places


def _small(stream: Tensor, frames: list[int]) -> Tensor:
    """Frames of a stream [F, 3, H, W] as bytes [len(frames), H, W, 3] of at most HEIGHT."""
    return torch.cat([as_bytes(shrunk(stream[None, frame : frame + 1], HEIGHT)[0]) for frame in frames])


def _size(video: Tensor, enlarge: int) -> tuple[int, int, int]:
    """(height, width) in screen pixels of a clip's pictures, and screen pixels per pixel."""
    picture = _small(video[0], [0])[0]
    times = magnification(picture, enlarge)
    return picture.shape[0] * times, picture.shape[1] * times, times
