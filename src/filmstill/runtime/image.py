"""Sample sheets: a few clips of a network as one picture."""

from pathlib import Path

import imageio.v3 as iio
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstill.runtime.files import replacing

ENLARGE = 2  # scale of small frames
COLUMNS = 12  # maximum frames shown per clip, evenly spaced
HEIGHT = 128  # maximum height of a frame in pixels; taller frames are scaled down


def save_sheet(video: Tensor, path: Path) -> None:
    """Write video [B, F, 3, H, W] in [0, 1] as a PNG with one row per clip and one column per frame."""
    video = video[:, torch.linspace(0, video.shape[1] - 1, min(COLUMNS, video.shape[1])).round().long()]
    if (height := video.shape[-2]) > HEIGHT:
        size = (HEIGHT, round(video.shape[-1] * HEIGHT / height))
        video = F.interpolate(video.flatten(0, 1), size, mode="area").unflatten(0, video.shape[:2])
    with_gaps = F.pad(video, (1, 1, 1, 1), value=0.25)
    picture = rearrange(with_gaps, "b f c h w -> (b h) (f w) c").mul(255).round().byte()
    times = ENLARGE if height <= HEIGHT // ENLARGE else 1
    large = picture.repeat_interleave(times, 0).repeat_interleave(times, 1)
    with replacing(path) as temporary:
        iio.imwrite(temporary, large.numpy(), extension=".png")
