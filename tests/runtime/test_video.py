"""Clips as files: equal frames give equal bytes, and a decoded file is close to its frames."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import pytest
import torch

from filmstill.errors import FilmstillError
from filmstill.runtime import video as video_module
from filmstill.runtime.video import check_format, check_length, save_video, writing

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


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_file_written_block_by_block_is_that_of_the_whole_clip(video: torch.Tensor, tmp_path: Path, suffix: str):
    whole, blocks = tmp_path / f"whole{suffix}", tmp_path / f"blocks{suffix}"
    save_video(video, whole, 16)
    with writing(blocks, 16) as write:
        for block in video.split(4):
            write(block)
            assert not blocks.exists()
    assert blocks.read_bytes() == whole.read_bytes()


def test_a_gif_shows_every_frame(tmp_path: Path):
    """Flat colours, one per frame and two frames the same, which a writer may merge."""
    colours = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    colours[5] = colours[4]
    clip = colours[:, :, None, None].expand(12, 3, 8, 8)
    save_video(clip, tmp_path / "clip.gif", 8)
    shown = torch.from_numpy(iio.imread(tmp_path / "clip.gif")).permute(0, 3, 1, 2) / 255
    assert shown.shape == (12, 3, 32, 32)
    assert (shown - clip[:, :, :1, :1]).abs().max() < 0.01
    assert iio.immeta(tmp_path / "clip.gif")["loop"] == 0


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_clip_that_is_not_finished_leaves_the_old_file(video: torch.Tensor, tmp_path: Path, suffix: str):
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), writing(path, 16) as write:
        write(video[:4])
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_no_file_or_disk_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "clip.mp4"
    check_length(path, 1_000_000, 1)
    with pytest.raises(FilmstillError, match=r"--frames: makes 1,000,001 frames of video, allowed: at most 1,000,000"):
        check_length(path, 1_000_001, 1)
    monkeypatch.setattr(video_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    check_length(path, 2**20 // 20, 1)
    line = r"clip.mp4: 104,858 frames take at least 2 MiB, allowed: what fits into the 1 MiB free there; lower --frames"
    with pytest.raises(FilmstillError, match=line):
        check_length(path, 52_429, 2)


def test_a_folder_whose_name_is_no_text_holds_a_clip(video: torch.Tensor, tmp_path: Path):
    path = tmp_path / os.fsdecode(b"\xff") / "clip.mp4"
    save_video(video[:2], path, 16)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_full_disk_is_one_line(video: torch.Tensor, tmp_path: Path, suffix: str):
    """A tmpfs of 64 KiB, skipped where mounting is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        path = tmp_path / f"clip{suffix}"
        with pytest.raises(FilmstillError, match=f"^{path}: disk full while writing; free some space"):
            save_video(video.repeat(4, 1, 1, 1), path, 16)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video_module.av, "codecs_available", {"gif"})
    check_format(tmp_path / "a.gif")
    with pytest.raises(FilmstillError, match=r"a\.mp4: PyAV's ffmpeg has no encoder libx264 here"):
        check_format(tmp_path / "a.mp4")
