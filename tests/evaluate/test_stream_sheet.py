"""The pictures of long streams: a film strip and a GIF."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from filmstill.evaluate.drawing import GAP, LINE, MARGIN, TITLE_HEIGHT
from filmstill.evaluate.stream_sheet import LABEL_WIDTH, note_of, shown, stream_sheet
from filmstill.params.world import World
from filmstill.runtime.image import as_bytes, enlarged
from filmstill.worlds.symbols import draw, render


def streams(count: int, frames: int) -> tuple[Tensor, list[str]]:
    """Ideal streams of `count` prompts, slightly grainy, and the prompts."""
    world = World()
    clips = draw(world, 0, "test_stream_sheet", 0, range(count))
    grain = 0.02 * torch.randn(count, frames, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return (render(clips.attributes, frames, world) + grain).clamp(0, 1), clips.prompts


def drawn(folder: Path, video: Tensor, prompts: list[str], window: int = 12) -> tuple[Tensor, Image.Image]:
    """The film strip as bytes [H, W, 3], and the GIF."""
    stream_sheet(video, prompts, 8, folder / "stream.gif", folder / "stream.png", window)
    return pixels(Image.open(folder / "stream.png")), Image.open(folder / "stream.gif")


def pixels(picture: Image.Image) -> Tensor:
    picture = picture.convert("RGB")
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, 3)


def in_strip(strip: Tensor, prompt: int, row: int, column: int, rows: int, prompts: int = 4) -> Tensor:
    """A picture of the strip of 32x32 streams and windows of 12, by its place from the strip's right end."""
    step = 64 + LINE
    right = strip.shape[1] - MARGIN - (0 if prompt % 2 or prompts == 1 else 12 * step - LINE + 2 * GAP)
    x = right + LINE - (12 - column) * step
    y = MARGIN + prompt // 2 * (TITLE_HEIGHT + rows * step - LINE + 2 * GAP) + TITLE_HEIGHT + row * step
    return strip[y : y + 64, x : x + 64]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Path]:
    """Nine streams of 240 frames, and the folder of their pictures."""
    folder = tmp_path_factory.mktemp("whole")
    video, prompts = streams(9, 240)
    stream_sheet(video, prompts, 8, folder / "stream.gif", folder / "stream.png", 12)
    return video, folder


def test_strip_shows_whole_windows_from_the_first_to_the_last(whole: tuple[Tensor, Path]) -> None:
    video, folder = whole
    strip = pixels(Image.open(folder / "stream.png"))
    assert strip.shape[0] <= 1420 and strip.shape[1] <= 1690
    exact = enlarged(as_bytes(video[:4]), 2)
    starts = (0, 24, 48, 72, 96, 132, 156, 180, 204, 228)
    for prompt in range(4):
        for row, start in enumerate(starts):
            for column in range(12):
                assert torch.equal(in_strip(strip, prompt, row, column, 10), exact[prompt, start + column])


def test_gif_runs_through_all_frames_at_the_pace_of_the_world(whole: tuple[Tensor, Path]) -> None:
    video, folder = whole
    gif, durations = Image.open(folder / "stream.gif"), []
    assert (folder / "stream.gif").stat().st_size < 2e6
    assert gif.width == 2 * MARGIN + 4 * (LABEL_WIDTH + GAP) - GAP  # the ninth stream is left out
    for frame, picture in enumerate(ImageSequence.Iterator(gif)):
        durations.append(picture.info["duration"])
        if frame not in (0, 1, 117, 239):
            continue
        sheet = pixels(picture).int()
        down = (sheet.shape[0] - 2 * MARGIN - TITLE_HEIGHT + GAP) // 2
        for prompt in range(8):
            x, y = MARGIN + prompt % 4 * (LABEL_WIDTH + GAP), MARGIN + TITLE_HEIGHT + prompt // 4 * down
            exact = enlarged(as_bytes(video[prompt, frame]), 3).int()
            error = (sheet[y : y + 96, x : x + 96] - exact).abs()
            assert error.float().mean() < 4 and error.max() < 80, (frame, prompt)  # of 64 colours
    assert gif.info["loop"] == 0 and len(durations) == 240
    assert sum(durations) == 30_000 and set(durations) == {120, 130}


def test_large_streams_are_scaled_down_and_sampled(tmp_path: Path) -> None:
    brightness = torch.linspace(0, 1, 240)[None, :, None, None, None]
    strip, gif = drawn(tmp_path, brightness.expand(2, 240, 3, 480, 832), ["a sunrise", "a sunset"], 24)
    assert strip.shape[0] <= 1420 and strip.shape[1] <= 1690
    assert gif.n_frames == 80 and gif.width < 400
    durations = [picture.info["duration"] for picture in ImageSequence.Iterator(gif)]
    assert sum(durations) == 30_000 and set(durations) == {370, 380}
    assert (strip[-MARGIN - TITLE_HEIGHT - 40, -MARGIN - 20] == 255).all()  # the last frame is the last picture
    assert note_of(240, 24, 8, 6) == "Streams of 240 frames: 8 of 10 windows of 24, 6 frames of each."


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_prompts_than_places(tmp_path: Path, count: int) -> None:
    video, prompts = streams(count, 24)
    strip, gif = drawn(tmp_path, video, prompts)
    exact = enlarged(as_bytes(video), 2)
    for prompt in range(count):
        assert torch.equal(in_strip(strip, prompt, 1, 11, 2, count), exact[prompt, 23])
    assert gif.n_frames == 24
    assert gif.width == 2 * MARGIN + count * (LABEL_WIDTH + GAP) - GAP


def test_stream_shorter_than_a_window_and_one_that_ends_within(tmp_path: Path) -> None:
    video, prompts = streams(1, 5)
    strip, gif = drawn(tmp_path, video, prompts)
    bottom, right = strip.shape[0] - MARGIN - TITLE_HEIGHT, strip.shape[1] - MARGIN
    assert torch.equal(strip[bottom - 64 : bottom, right - 64 : right], enlarged(as_bytes(video[0, 4]), 2))
    assert gif.n_frames == 5
    assert shown(5, 5, 64, 64) == ([0], [0, 1, 2, 3, 4])
    assert shown(30, 12, 64, 64)[0] == [0, 12, 24]
    assert shown(30, 12, 64, 64, beginning=5)[0] == [0, 12, 24]
    assert shown(156, 12, 64, 64, beginning=5)[0] == [0, 12, 24, 36, 48, 72, 84, 108, 120, 144]
    assert shown(240, 12, 300, 64, beginning=5)[0] == [0, 228]  # two rows
    video, prompts = streams(1, 30)
    strip, _ = drawn(tmp_path, video, prompts)
    exact = enlarged(as_bytes(video), 2)
    assert torch.equal(in_strip(strip, 0, 2, 5, 3, 1), exact[0, 29])
    assert len(in_strip(strip, 0, 2, 6, 3, 1).flatten(0, 1).unique(dim=0)) == 1  # nothing after the last frame


def test_broken_streams_are_drawn_and_pictures_are_the_same_again(tmp_path: Path) -> None:
    video, prompts = streams(2, 24)
    video[0, 12:] = float("nan")
    video[1, 0] = 7.0
    wordy = [prompts[0] * 20, "x" * 500]
    strip, _ = drawn(tmp_path, video, wordy)
    assert (in_strip(strip, 0, 1, 0, 2) == 0).all() and (in_strip(strip, 1, 0, 0, 2) == 255).all()
    drawn(tmp_path / "again", video, wordy)
    for name in ("stream.gif", "stream.png"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
