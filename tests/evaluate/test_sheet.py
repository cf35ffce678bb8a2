"""The comparison sheet as GIF and film strip."""

from pathlib import Path

import torch
from filmstill.worlds.digits import draw
from PIL import Image

from filmstill.evaluate.metrics import TITLES
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.params.world import World


def comparison(prompts: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Drawn clips of `prompts` prompts with another amount of noise per arm, and the prompts."""
    clips = draw(World(), 0, "test_report", 0, range(prompts))
    dice = torch.Generator().manual_seed(0)
    amounts = dict(zip(TITLES, (0.0, 0.02, 0.2, 0.05, 0.02), strict=True))
    noise = {arm: torch.randn(clips.video.shape, generator=dice) * amount for arm, amount in amounts.items()}
    return {arm: clips.video + noise[arm] for arm in TITLES}, clips.prompts


def test_sheet_loops_at_its_pace_and_is_small(tmp_path: Path) -> None:
    videos, prompts = comparison(6)
    comparison_sheet(videos, prompts, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.gif").stat().st_size < 1.5e6
    with Image.open(tmp_path / "sheet.gif") as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0 and len(durations) == 12 and sum(durations) == 1500
    with Image.open(tmp_path / "sheet.png") as strip:
        assert strip.width > strip.height


def test_sheet_takes_broken_clips_and_long_prompts(tmp_path: Path) -> None:
    videos, prompts = comparison(2)
    videos["student"] = torch.full_like(videos["student"], float("nan"))
    videos["student"][0] = 7.0
    wordy = [prompts[0] * 20, "x" * 500]
    comparison_sheet(videos, wordy, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    comparison_sheet(videos, wordy, 8, tmp_path / "again.gif", tmp_path / "again.png")
    assert (tmp_path / "sheet.gif").read_bytes() == (tmp_path / "again.gif").read_bytes()
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "again.png").read_bytes()
