"""Clips as pixels of a picture, and sample sheets: a few clips of a network as one picture."""

from pathlib import Path

import imageio.v3 as iio
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstill.runtime.files import replacing

ENLARGE = 3  # screen pixels per pixel of a small clip, each way
SMALL = 64  # longest side in pixels of a small clip
COLUMNS = 12  # maximum frames shown per clip, evenly spaced
HEIGHT = 128  # maximum height of a frame in pixels; taller frames are scaled down
GREY = 64  # of the lines between frames


def save_sheet(video: Tensor, path: Path) -> None:
    """Write video [B, F, 3, H, W] in [0, 1] as a PNG with one row per clip and one column per frame."""
    frames = as_bytes(shrunk(video[:, spread(video.shape[1], COLUMNS)], HEIGHT))
    times = ENLARGE if max(frames.shape[2:4]) <= SMALL else 1
    with_lines = F.pad(enlarged(frames, times), (0, 0, 1, 1, 1, 1), value=GREY)
    with replacing(path) as temporary:
        iio.imwrite(temporary, rearrange(with_lines, "b f h w c -> (b h) (f w) c").numpy(), extension=".png")


def spread(count: int, most: int) -> list[int]:
    """All indices below `count`, or `most` of them from the first to the last, evenly spaced."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().tolist()


def shrunk(video: Tensor, height: int) -> Tensor:
    """Video [B, F, 3, H, W] scaled down to at most `height` pixels, by the mean over each pixel's area."""
    if video.shape[-2] <= height:
        return video
    size = (height, max(1, round(video.shape[-1] * height / video.shape[-2])))
    return F.interpolate(video.flatten(0, 1), size, mode="area").unflatten(0, video.shape[:2])


def as_bytes(video: Tensor) -> Tensor:
    """Video [..., 3, H, W] in [0, 1], clipped, as bytes [..., H, W, 3]; a pixel that is not a number becomes black."""
    return video.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().movedim(-3, -1).cpu()


def enlarged(pictures: Tensor, times: int) -> Tensor:
    """Bytes [..., H, W, 3] with every pixel as a square of `times` by `times`, so that nothing is blurred."""
    return pictures.repeat_interleave(times, -3).repeat_interleave(times, -2)
