"""Sample sheets: what the network in training makes of a few fixed prompts, as one picture."""

from pathlib import Path

import imageio.v3 as iio
import torch
from einops import rearrange
from torch import Tensor

from filmstill.runtime.files import replacing

ENLARGE = 2


def save_sheet(video: Tensor, path: Path) -> None:
    """Write video [B, F, 3, H, W] in [0, 1] as a PNG: a clip a row, a frame a column."""
    with_gaps = torch.nn.functional.pad(video, (1, 1, 1, 1), value=0.25)
    picture = rearrange(with_gaps, "b f c h w -> (b h) (f w) c").mul(255).round().byte()
    large = picture.repeat_interleave(ENLARGE, 0).repeat_interleave(ENLARGE, 1)
    with replacing(path) as temporary:
        iio.imwrite(temporary, large.numpy(), extension=".png")
