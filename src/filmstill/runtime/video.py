"""Clips as files that players open."""

import io
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import replacing

ENLARGE = 4  # screen pixels a pixel of a small clip: players show 32 pixels as a stamp
SMALL = 64  # pixels a side
FORMATS = (".mp4", ".gif")


def save_video(video: Tensor, path: Path, fps: int) -> None:
    """Write video [F, 3, H, W] in [0, 1] as H.264 (.mp4) or as a looping .gif; a small one is enlarged."""
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
    """An mp4 of frames [F, H, W, 3], uint8. PyAV itself: imageio's plugin takes many times as long."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.thread_count = 1  # a clip is too small to share, and threads would make its bytes a matter of chance
        stream.options = {"x264-params": "mbtree=0"}  # so would x264's macroblock tree, at widths such as 192 and 832
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise FilmstillError(
            f"{path}: '{path.suffix}' is not a video format written here, allowed: {', '.join(FORMATS)}"
        )
