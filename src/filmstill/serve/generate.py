"""Prompts to video files with a distilled student."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from filmstill.errors import require
from filmstill.models.load import pixel_frames
from filmstill.runtime.compute import check_device
from filmstill.runtime.files import require_writable
from filmstill.runtime.progress import progress
from filmstill.runtime.video import MAX_FRAMES, check_format, check_length, piping, writing
from filmstill.serve.batch import Batch, Request, numbered
from filmstill.serve.given import Opening
from filmstill.serve.options import PIPE
from filmstill.serve.prompt_schedule import PromptSchedule
from filmstill.serve.stream_config import StreamConfig
from filmstill.serve.streamer import Files, Streamer, compute_on

STDOUT = Path(PIPE)


@dataclass(frozen=True)
class Serving:
    """How streams are made. frames, window: latent frames, None for those of the training, `endless` for no end.

    prompt_change: as RolloutConfig's, None for the student's own. opening: the picture or the clip that every stream
    begins with. fast: decode with the release's small decoder.
    """

    frames: int | str | None = None
    window: int | None = None
    prompt_change: str | None = None
    opening: Opening | None = None
    device: str = "cpu"
    fast: bool = False


def generate(prompts: list[PromptSchedule], seeds: list[int], out: Path, files: Files, serving: Serving) -> None:
    """Write one video per prompt and seed to `out`; several get numbers and a manifest, by which a rerun goes on.

    Raises FilmstillError, before anything is loaded, for a format, target, device, length, window, picture, clip or
    change of prompt that is not allowed.
    """
    requests = [Request(prompt, seed) for prompt in prompts for seed in seeds]
    paths = numbered(out, len(requests))
    _check_targets(paths)
    check_device(serving.device, "--device")
    config, compute = _config(files, serving, prompts, paths), compute_on(serving.device)
    config.check_memory(compute)
    pixels = serving.opening.read(files.codec, config) if serving.opening else None
    settings = f"{config} {serving.device} {serving.fast}"
    batch = Batch.of(paths, requests, files.paths(), settings, pixels)
    if not (missing := batch.missing()):
        print(f"{batch.manifest}: all {len(paths)} videos are made already")
        return
    streamer = Streamer.load(files, config, compute, serving.fast)
    streamer.encoder.prepare([prompt for request in missing.values() for prompt in request.prompts.prompts])
    given = None if pixels is None else streamer.codec.encode(pixels[None])
    for path, request in missing.items():
        batch.forget(path)
        if _write(streamer, request, path, given):
            batch.record(path)
        elif config.frames is not None:
            raise KeyboardInterrupt  # the exit code of Ctrl-C: there is more to make


def _check_targets(paths: list[Path]) -> None:
    """Raise FilmstillError for a format that is not written here, and for a path that cannot be written."""
    if STDOUT in paths:
        return
    check_format(paths[0])
    for path in paths:
        require_writable(path)


def _config(files: Files, serving: Serving, prompts: list[PromptSchedule], paths: list[Path]) -> StreamConfig:
    """What is streamed. Raises FilmstillError if prompts or paths do not allow it."""
    config = StreamConfig.read(files.student).resized(serving.frames, serving.window, serving.prompt_change)
    for prompt in prompts:
        prompt.check(config.attention, config.frames)
    if config.frames is None:
        require(len(paths) == 1, "--frames", serving.frames, f"a number of frames, for {len(paths)} streams")
    elif STDOUT not in paths:
        check_length(paths[0], pixel_frames(files.codec, config.frames), len(paths))
    return config


def _write(streamer: Streamer, request: Request, path: Path, given: Tensor | None) -> bool:
    """Write one video, block by block as it is generated; print its path and speed.

    Ctrl-C ends the stream early, and so does a reader of the standard output that leaves; what was made is kept. A file
    ends after MAX_FRAMES. Returns False after Ctrl-C, otherwise True.
    """
    config, count, seconds, first = streamer.config, 0, 0.0, 0.0  # seconds of generation, without writing
    blocks = None if config.frames is None else config.attention.block_count(config.frames)
    ended = stopped = False
    with _sink(path, config.fps) as write, progress("generate", blocks, unit="block") as bar:
        start = time.perf_counter()
        try:
            for block in streamer.stream(request.prompts, request.seed, given):
                seconds += time.perf_counter() - start
                first = first or seconds
                write(block)
                count += len(block)
                bar.update()
                if ended := path != STDOUT and count >= MAX_FRAMES:
                    break
                start = time.perf_counter()
        except (KeyboardInterrupt, BrokenPipeError) as cause:
            if not count:
                raise
            ended, stopped = True, isinstance(cause, KeyboardInterrupt)
    after = f" (ended after {count} frames)" if ended else ""
    print(
        f"{path}: {str(request.prompts)!r}, seed {request.seed}{after}: first block after {first:.3f} s, "
        f"{count / seconds:.0f} frames per second",
        file=sys.stderr if path == STDOUT else sys.stdout,
    )
    return not stopped


def _sink(path: Path, fps: int) -> AbstractContextManager[Callable[[Tensor], None]]:
    # Not sys.stdout, which drops what a reader that has left does not read.
    return piping(open(1, "wb", buffering=0, closefd=False), fps) if path == STDOUT else writing(path, fps)
