"""Clips as .mp4 and .gif files, written block by block: no file's frames are in memory at once."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.filter import Graph
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import replacing

ENLARGE = 4  # scale of small clips, which players would show tiny
SMALL = 64  # largest side of a small clip in pixels
CODECS = {".mp4": "libx264", ".gif": "gif"}  # encoder by suffix
# Most frames of a file. The mp4 muxer keeps 70 bytes per frame in memory, for the index that ends the file.
MAX_FRAMES = 1_000_000
FRAME_BYTES = 20  # at least, of any frame in either format, its entry in the index included


def save_video(video: Tensor, path: Path, fps: int) -> None:
    """Write video [F, 3, H, W] in [0, 1] as H.264 (.mp4) or as a looping .gif; small clips are enlarged.

    Raises FilmstillError for another suffix and for a refused write.
    """
    with writing(path, fps) as write:
        write(video)


@contextmanager
def writing(path: Path, fps: int) -> Iterator[Callable[[Tensor], None]]:
    """`save_video` in blocks: yields a function that appends frames [F, 3, H, W]. `path` appears when all are written.

    Uses PyAV: imageio's plugin takes many times as long, and keeps all frames of a .gif.
    """
    check_format(path)
    # An open file, not a name: PyAV refuses one that is not UTF-8.
    with replacing(path) as temporary, temporary.open("wb") as file, _encoding(file, path.suffix[1:], fps) as write:
        yield write


@contextmanager
def piping(file: BinaryIO, fps: int) -> Iterator[Callable[[Tensor], None]]:
    """`writing` to an open file that is read while it is written: H.264 in Matroska, which needs no end.

    The function raises BrokenPipeError when the reader has left.
    """
    pipe = _Pipe(file)
    with _encoding(pipe, "matroska", fps) as write:

        def delivered(video: Tensor) -> None:
            write(video)
            if pipe.reader_left:
                raise BrokenPipeError

        yield delivered


class _Pipe:
    """What PyAV writes into. It cannot pass on an exception, so a reader that has left is noted."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.reader_left = file, False

    def write(self, data: bytes) -> int:
        try:
            self.file.write(data)
            self.file.flush()
        except BrokenPipeError:
            self.reader_left = True
        return len(data)


@contextmanager
def _encoding(file: "BinaryIO | _Pipe", container_format: str, fps: int) -> Iterator[Callable[[Tensor], None]]:
    """Yields a function that encodes frames [F, 3, H, W] in [0, 1] into an open file."""
    encode = _Gif if container_format == "gif" else _H264
    with av.open(file, "w", format=container_format) as container:
        encoder: _H264 | _Gif | None = None

        def write(video: Tensor) -> None:
            nonlocal encoder
            frames = video.mul(255).round().byte().permute(0, 2, 3, 1)
            times = ENLARGE if max(video.shape[-2:]) <= SMALL else 1
            large = frames.repeat_interleave(times, 1).repeat_interleave(times, 2).contiguous().numpy()
            encoder = encoder or encode(container, fps, *large.shape[1:3])
            for frame in large:
                encoder.add(av.VideoFrame.from_ndarray(frame, format="rgb24"))

        yield write
        if encoder:
            encoder.end()


class _H264:
    """H.264 in yuv420p."""

    def __init__(self, container: Any, fps: int, height: int, width: int) -> None:
        self.container, self.stream = container, container.add_stream("libx264", rate=fps)
        self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, "yuv420p"
        self.stream.thread_count = 1  # several threads give different bytes from run to run
        self.stream.options = {"x264-params": "mbtree=0"}  # so does the macroblock tree, at widths such as 192 and 832

    def add(self, frame: av.VideoFrame) -> None:
        self.container.mux(self.stream.encode(frame))

    def end(self) -> None:
        self.container.mux(self.stream.encode())


class _Gif:
    """A looping GIF in which each frame has its own 256 colours."""

    def __init__(self, container: Any, fps: int, height: int, width: int) -> None:
        self.container, self.stream, self.count = container, container.add_stream("gif", rate=fps), 0
        self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, "pal8"
        self.time = Fraction(1, fps)
        self.colours = graph = Graph()
        rgb = av.VideoFormat("rgb24", width, height)
        source = graph.add_buffer(width=width, height=height, format=rgb, time_base=self.time)
        split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        mapped, sink = graph.add("paletteuse", "new=1:dither=none"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(palette, 0, 0)
        split.link_to(mapped, 1, 0)
        palette.link_to(mapped, 0, 1)
        mapped.link_to(sink)
        graph.configure()

    def add(self, frame: av.VideoFrame) -> None:
        frame.pts, frame.time_base = self.count, self.time
        self.count += 1
        self.colours.push(frame)
        self.container.mux(self.stream.encode(self.colours.vpull()))

    def end(self) -> None:
        self.container.mux(self.stream.encode())


def check_format(path: Path) -> None:
    """Raise FilmstillError unless the suffix is one of CODECS, and this machine's ffmpeg has its encoder."""
    if path.suffix not in CODECS:
        raise FilmstillError(
            f"{path}: '{path.suffix}' is not a video format written here, allowed: {', '.join(CODECS)}"
        )
    codec = CODECS[path.suffix]
    if codec not in av.codecs_available:
        raise FilmstillError(f"{path}: PyAV's ffmpeg has no encoder {codec} here; install PyAV's own wheel (pip)")


def check_length(path: Path, frames: int, files: int) -> None:
    """Raise FilmstillError if a file like `path` cannot hold `frames`, or its disk not so many `files` of them."""
    if frames > MAX_FRAMES:
        raise FilmstillError(f"--frames: makes {frames:,} frames of video, allowed: at most {MAX_FRAMES:,} in a file")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    needed, free = FRAME_BYTES * frames * files, shutil.disk_usage(folder).free
    if needed > free:
        raise FilmstillError(
            f"{path}: {frames * files:,} frames take at least {needed / 2**20:,.0f} MiB, allowed: what fits into the "
            f"{free / 2**20:,.0f} MiB free there; lower --frames or choose another disk"
        )
