"""Clips as .mp4 and .gif files."""

import io
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import replacing

ENLARGE = 4  # scale of small clips, which players would show tiny
SMALL = 64  # largest side of a small clip in pixels
FORMATS = (".mp4", ".gif")


def save_video(video: Tensor, path: Path, fps: int) -> None:
    """Write video [F, 3, H, W] in [0, 1] as H.264 (.mp4) or as a looping .gif; small clips are enlarged.

    Raises FilmstillError for another suffix and for a refused write.
    """
    check_format(path)
    frames = video.mul(255).round().byte().permute(0, 2, 3, 1)
    times = ENLARGE if max(video.shape[-2:]) <= SMALL else 1
    large = frames.repeat_interleave(times, 1).repeat_interleave(times, 2).contiguous().numpy()
    with replacing(path) as temporary:
        if path.suffix == ".mp4":
            encoded = _h264(large, fps)
        else:
            encoded = iio.imwrite("<bytes>", large, extension=".gif", duration=1000 / fps, loop=0)
        temporary.write_bytes(encoded)


def _h264(frames: np.ndarray, fps: int) -> bytes:
    """Bytes of an mp4 of frames [F, H, W, 3], uint8. Uses PyAV: imageio's plugin takes many times as long."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.thread_count = 1  # several threads give different bytes from run to run
        stream.options = {"x264-params": "mbtree=0"}  # so does the macroblock tree, at widths such as 192 and 832
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def check_format(path: Path) -> None:
    """Raise FilmstillError unless the suffix is one of FORMATS."""
    if path.suffix not in FORMATS:
        raise FilmstillError(
            f"{path}: '{path.suffix}' is not a video format written here, allowed: {', '.join(FORMATS)}"
        )
