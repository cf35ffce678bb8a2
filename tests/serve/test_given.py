"""Pictures and clips that a stream begins with: any size and mode, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from filmstill.errors import FilmstillError
from filmstill.runtime.video import save_video
from filmstill.serve.given import Size, read_clip, read_picture


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "YCbCr"])
def test_a_picture_of_any_mode_becomes_pixels_in_0_1(tmp_path: Path, mode: str):
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    grey = np.full((40, 60), 128, dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(grey).convert("RGB").convert(mode)
    picture.save(path := tmp_path / f"a.{suffix}")
    video = read_picture(path, Size(32, 32))
    assert video.shape == (1, 3, 32, 32)
    expected = 1.0 if mode == "1" else 128 / 255
    assert (video.mean() - expected).abs() < (0.6 if mode == "1" else 0.02)
    assert 0 <= video.min() <= video.max() <= 1


def test_transparent_is_black(tmp_path: Path):
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", Size(32, 32)).max() == 0


@pytest.mark.parametrize(("height", "width"), [(64, 128), (128, 64), (20, 20), (32, 32), (1, 500), (7, 3)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_picture_of_any_shape_is_cropped_or_padded(height: int, width: int, fit: str):
    video = Size(32, 32, fit).of(torch.ones(2, 3, height, width))
    assert video.shape == (2, 3, 32, 32)
    assert (video.min() == 0) == (fit == "pad" and height != width)
    assert video.max() == pytest.approx(1)


def test_a_picture_enlarged_without_blur_comes_back(tmp_path: Path):
    """As `generate` writes small clips, four times as large."""
    pixels = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    large = pixels.repeat_interleave(4, 1).repeat_interleave(4, 2).movedim(0, -1).byte().numpy()
    Image.fromarray(large).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", Size(32, 32))[0] - pixels / 255).abs().max() < 1e-6


def test_a_thin_picture_is_cropped_before_it_is_scaled(tmp_path: Path):
    shades = np.linspace(0, 255, 4001).astype(np.uint8)
    Image.fromarray(np.repeat(shades[None], 2, 0)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", Size(480, 832))
    assert picture.shape == (1, 3, 480, 832)
    assert (picture - shades[2000] / 255).abs().max() < 0.01


def test_a_picture_that_breaks_off_and_one_of_32_bits_are_refused_by_name(tmp_path: Path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FilmstillError, match=r"a\.png: is no picture that can be read \(.*truncated.*\); give a PNG"):
        read_picture(tmp_path / "a.png", Size(32, 32))
    for mode in ("I", "F"):
        Image.new(mode, (8, 8)).save(tmp_path / "b.tiff")
        with pytest.raises(FilmstillError, match=rf"b\.tiff: mode: is '{mode} \(32 bits\)', allowed: 8 or 16 bits"):
            read_picture(tmp_path / "b.tiff", Size(32, 32))


def test_the_last_frames_of_a_clip_are_read(tmp_path: Path):
    shades = torch.linspace(0, 1, 12)[:, None, None, None].expand(12, 3, 32, 32)
    save_video(shades, tmp_path / "a.mp4", 8)
    for frames, first in ((3, 9), (12, 0), (99, 0)):
        clip = read_clip(tmp_path / "a.mp4", frames, Size(32, 32))
        assert (clip.mean(dim=(1, 2, 3)) - shades[first:, 0, 0, 0]).abs().max() < 0.03


@pytest.mark.parametrize("read", [read_picture, lambda path, size: read_clip(path, 3, size)])
def test_a_file_that_is_neither_is_refused_in_one_line(tmp_path: Path, read):
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FilmstillError, match=r"a\.png: is no (picture|video) that can be read \(.*\); give a"):
        read(tmp_path / "a.png", Size(32, 32))
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(FilmstillError, match=r"b\.png: is no (picture|video) that can be read"):
        read(tmp_path / "b.png", Size(32, 32))
    with pytest.raises((FilmstillError, FileNotFoundError), match=r"c\.png"):
        read(tmp_path / "c.png", Size(32, 32))


@pytest.mark.filterwarnings("error")
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path):
    Image.new("1", (2**13 + 1, 2**13)).save(tmp_path / "larger.png")
    with pytest.raises(FilmstillError, match=r"larger\.png: size: is '8193x8192', allowed: at most 67,108,864 pixels"):
        read_picture(tmp_path / "larger.png", Size(32, 32))
