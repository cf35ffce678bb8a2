"""Clips as files: equal frames give equal bytes, and a decoded file is close to its frames."""

from pathlib import Path

import imageio.v3 as iio
import pytest
import torch

from filmstill.runtime.video import save_video

FRAMES, HEIGHT, WIDTH = 21, 128, 192  # at this size x264 with its macroblock tree writes different bytes each time


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    coarse = torch.rand(FRAMES, 3, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(0))
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_same_frames_are_the_same_bytes(video: torch.Tensor, tmp_path: Path, suffix: str):
    written = set()
    for _ in range(8):
        save_video(video, tmp_path / f"clip{suffix}", 16)
        written.add((tmp_path / f"clip{suffix}").read_bytes())
    assert len(written) == 1


def test_an_mp4_shows_the_frames(tmp_path: Path):
    """Grey ramps, since yuv420p halves the resolution of colours."""
    ramp = (
        torch.linspace(0, 1, WIDTH).expand(FRAMES, 3, HEIGHT, WIDTH)
        * torch.linspace(0.2, 1, FRAMES)[:, None, None, None]
    )
    save_video(ramp, tmp_path / "clip.mp4", 16)
    shown = torch.from_numpy(iio.imread(tmp_path / "clip.mp4", plugin="pyav")).permute(0, 3, 1, 2) / 255
    assert shown.shape == ramp.shape
    assert (shown - ramp).abs().mean() < 0.02
