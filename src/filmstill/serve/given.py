"""The given frames of a stream: a picture or the end of a clip, at the student's size."""

from collections import deque
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from filmstill.errors import FilmstillError, require
from filmstill.models.load import latent_frames, pixel_frames, pixel_size
from filmstill.serve.stream_config import StreamConfig

MOST_PIXELS = 2**26  # width times height of a picture; Pillow warns of a third more


@dataclass(frozen=True)
class Size:
    """Height and width in pixels, and how a picture of another shape becomes that: cropped, or padded with black."""

    height: int
    width: int
    fit: str = "crop"

    def of(self, video: Tensor) -> Tensor:
        """Video [F, 3, h, w] in [0, 1] at this size. It is cropped before it is scaled: a thin picture stays small."""
        height, width = video.shape[-2:]
        across, down = self.width / width, self.height / height
        scale = max(across, down) if self.fit == "crop" else min(across, down)
        rows, columns = min(height, ceil(self.height / scale)), min(width, ceil(self.width / scale))
        top, left = (height - rows) // 2, (width - columns) // 2
        video = video[..., top : top + rows, left : left + columns]
        inside = min(self.height, max(1, round(rows * scale))), min(self.width, max(1, round(columns * scale)))
        mode = {"mode": "area"} if scale < 1 else {"mode": "bilinear", "align_corners": False}
        video = video if inside == (rows, columns) else F.interpolate(video, inside, **mode)
        top, left = (self.height - inside[0]) // 2, (self.width - inside[1]) // 2
        return F.pad(video, (left, self.width - inside[1] - left, top, self.height - inside[0] - top))


@dataclass(frozen=True)
class Opening:
    """What a stream begins with: the picture, or the end of the clip, in a file. is_clip: which of the two it is."""

    path: Path
    is_clip: bool
    fit: str = "crop"

    def read(self, codec: Path, config: StreamConfig) -> Tensor:
        """Its pixels [F, 3, H, W] in [0, 1]: one frame of a picture, or the last window of a clip, in whole blocks.

        Raises FilmstillError for a clip shorter than a block, and for one that leaves the stream no frame to make.
        """
        frames, attention = config.frames, config.attention
        size = Size(*pixel_size(codec, config.latent_shape[2:]), self.fit)
        if not self.is_clip:
            require(frames != 1, "--frames", frames, f"more than the latent frame that is given by {self.path}")
            return read_picture(self.path, size)
        most = attention.whole_blocks(attention.window_frames or config.latent_shape[0])
        video = read_clip(self.path, pixel_frames(codec, most), size)
        least = attention.first_block_frames
        latents = attention.whole_blocks(latent_frames(codec, len(video)))
        if not latents:
            raise FilmstillError(
                f"{self.path}: is a clip of {len(video)} frames, allowed: at least {pixel_frames(codec, least)}, the "
                f"student's first block"
            )
        if frames is not None and latents >= frames:
            raise FilmstillError(
                f"--frames: is {frames}, allowed: more than the {latents} latent frames that are given by {self.path}"
            )
        return video[-pixel_frames(codec, latents) :]


def read_picture(path: Path, size: Size) -> Tensor:
    """The picture in `path`, of any mode and size, as a video [1, 3, H, W] in [0, 1]; transparent is black.

    Raises FilmstillError for a file that is no picture.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            require(
                width * height <= MOST_PIXELS, f"{path}: size", f"{width}x{height}", f"at most {MOST_PIXELS:,} pixels"
            )
            allowed = "8 or 16 bits per channel"
            require(opened.mode not in ("I", "F"), f"{path}: mode", f"{opened.mode} (32 bits)", allowed)
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I;16"):
                pixels = np.asarray(picture, dtype=np.float32)[..., None].repeat(3, -1) / 65535
            else:
                rgba = picture.convert("RGBA")
                flat = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
                pixels = np.asarray(flat, dtype=np.float32) / 255
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file system, which names the file
            raise
        raise FilmstillError(f"{path}: is no picture that can be read ({_short(error)}); give a PNG or JPEG") from None
    return size.of(torch.from_numpy(pixels).movedim(-1, 0)[None])


def read_clip(path: Path, frames: int, size: Size) -> Tensor:
    """The last `frames` frames of the video in `path`, or all if it has fewer: [F, 3, H, W] in [0, 1].

    Raises FilmstillError for a file that is no video.
    """
    last: deque[Tensor] = deque(maxlen=frames)
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).movedim(-1, 0)
                last.append(size.of(pixels[None].float() / 255))
    except (av.error.FFmpegError, IndexError) as error:
        raise FilmstillError(f"{path}: is no video that can be read ({_short(error)}); give an .mp4 or .gif") from None
    if not last:
        raise FilmstillError(f"{path}: has no frame; give an .mp4 or .gif with some")
    return torch.cat(list(last))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
