"""Clips as files that players open."""

from pathlib import Path

import imageio.v3 as iio
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import replacing

FPS = 8
ENLARGE = 4  # screen pixels a pixel: players show 32 pixels as a stamp
FORMATS = (".mp4", ".gif")


def save_video(video: Tensor, path: Path) -> None:
    """Write video [F, 3, H, W] in [0, 1], enlarged, as H.264 (.mp4) or as a looping .gif."""
    check_format(path)
    frames = video.mul(255).round().byte().permute(0, 2, 3, 1)
    large = frames.repeat_interleave(ENLARGE, 1).repeat_interleave(ENLARGE, 2).numpy()
    with replacing(path) as temporary:
        if path.suffix == ".mp4":
            encoded = iio.imwrite("<bytes>", large, extension=".mp4", plugin="pyav", codec="libx264", fps=FPS)
        else:
            encoded = iio.imwrite("<bytes>", large, extension=".gif", duration=1000 / FPS, loop=0)
        temporary.write_bytes(encoded)


def check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise FilmstillError(
            f"{path}: '{path.suffix}' is not a video format written here, allowed: {', '.join(FORMATS)}"
        )
