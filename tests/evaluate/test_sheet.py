"""The comparison sheet as GIF and film strip."""

from pathlib import Path

import torch
from PIL import Image, ImageSequence

from filmstill.evaluate.drawing import GAP, LINE, MARGIN, TITLE_HEIGHT
from filmstill.evaluate.metrics import TITLES
from filmstill.evaluate.sheet import LABEL_WIDTH, comparison_sheet
from filmstill.params.world import World
from filmstill.runtime.image import as_bytes, enlarged
from filmstill.worlds.symbols import draw


def comparison(prompts: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Drawn clips of `prompts` prompts with another amount of noise per arm, and the prompts."""
    clips = draw(World(), 0, "test_report", 0, range(prompts))
    dice = torch.Generator().manual_seed(0)
    amounts = dict(zip(TITLES, (0.0, 0.02, 0.2, 0.05, 0.02), strict=True))
    noise = {arm: torch.randn(clips.video.shape, generator=dice) * amount for arm, amount in amounts.items()}
    return {arm: clips.video + noise[arm] for arm in TITLES}, clips.prompts


def pixels(picture: Image.Image) -> torch.Tensor:
    picture = picture.convert("RGB")
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, 3)


def test_sheet_loops_at_its_pace_and_is_small(tmp_path: Path) -> None:
    videos, prompts = comparison(6)
    comparison_sheet(videos, prompts, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.gif").stat().st_size < 1.5e6
    with Image.open(tmp_path / "sheet.gif") as gif:
        durations = [picture.info["duration"] for picture in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0 and len(durations) == 12 and sum(durations) == 1500
        gif.seek(7)
        whole = pixels(gif).int()
    for column, arm in enumerate(TITLES):
        x = MARGIN + LABEL_WIDTH + column * (128 + GAP)
        for row in range(6):
            y = MARGIN + TITLE_HEIGHT + row * (128 + GAP)
            shown = whole[y : y + 128 : 4, x : x + 128 : 4]
            assert torch.equal(enlarged(shown, 4), whole[y : y + 128, x : x + 128])
            errors = (shown - as_bytes(videos[arm]).int()).abs().float().mean(dim=(2, 3, 4))
            # Not 0, as one palette serves all; not always the least, as a swing passes each place twice.
            assert errors[row, 7] < errors.min() + 0.1, (arm, row)
            assert errors[row, 7] < errors[row, 8] - 1, (arm, row)


def test_strip_shows_every_second_frame_of_four_prompts(tmp_path: Path) -> None:
    videos, prompts = comparison(6)
    comparison_sheet(videos, prompts, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        strip = pixels(picture)
    across, down = 6 * (96 + LINE) - LINE, 2 * TITLE_HEIGHT + 5 * (96 + GAP) - GAP
    left = strip.shape[1] - MARGIN - 2 * across - 2 * GAP
    for prompt in range(4):
        for row, arm in enumerate(TITLES):
            for column in range(6):
                x = left + prompt % 2 * (across + 2 * GAP) + column * (96 + LINE)
                y = MARGIN + prompt // 2 * (down + 2 * GAP) + 2 * TITLE_HEIGHT + row * (96 + GAP)
                assert torch.equal(
                    strip[y : y + 96, x : x + 96], enlarged(as_bytes(videos[arm][prompt, 2 * column]), 3)
                )


def test_sheet_takes_broken_clips_and_long_prompts(tmp_path: Path) -> None:
    videos, prompts = comparison(2)
    videos["student"] = torch.full_like(videos["student"], float("nan"))
    videos["student"][0] = 7.0
    wordy = [prompts[0] * 20, "x" * 500]
    comparison_sheet(videos, wordy, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    comparison_sheet(videos, wordy, 8, tmp_path / "again.gif", tmp_path / "again.png")
    assert (tmp_path / "sheet.gif").read_bytes() == (tmp_path / "again.gif").read_bytes()
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_titles_show_the_scores_of_the_arms(tmp_path: Path):
    videos, prompts = comparison(2)
    sheets = []
    for score in ("0.00", "1.00"):
        png = tmp_path / f"{score}.png"
        comparison_sheet(videos, prompts, 8, tmp_path / "sheet.gif", png, dict.fromkeys(videos, score))
        sheets.append(png.read_bytes())
    assert sheets[0] != sheets[1]
