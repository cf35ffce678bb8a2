"""Prompts to video files with a distilled student."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from filmstill.errors import FilmstillError, require
from filmstill.models.load import pixel_frames
from filmstill.runtime.compute import check_device
from filmstill.runtime.files import require_writable
from filmstill.runtime.progress import progress
from filmstill.runtime.video import check_format, check_length, piping, writing
from filmstill.serve.batch import Batch, Request
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
    check_device(serving.device, "--device")
    config = StreamConfig.read(files.student).resized(serving.frames, serving.window, serving.prompt_change)
    requests = [Request(prompt, seed) for prompt in prompts for seed in seeds]
    for prompt in prompts:
        prompt.check(config.attention, config.frames)
    if out != STDOUT:
        check_format(out)
    elif len(requests) > 1:
        raise FilmstillError(f"--out: is -, the standard output, allowed: for one stream; these are {len(requests)}")
    compute = compute_on(serving.device)
    pixels = serving.opening.read(files.codec, config) if serving.opening else None
    batch = Batch.of(out, requests, files.student, config, pixels)
    for path in batch.paths:
        if path != STDOUT:
            require_writable(path)
    if config.frames is not None and out != STDOUT:
        check_length(out, pixel_frames(files.codec, config.frames), len(batch.paths))
    elif config.frames is None:
        require(len(requests) == 1, "--frames", serving.frames, f"a number, for {len(requests)} clips")
    config.check_memory(compute)
    todo = batch.missing()
    if not todo:
        return
    streamer = Streamer.load(files, config, compute, serving.fast)
    streamer.encoder.prepare([prompt for request in todo.values() for prompt in request.prompts.prompts])
    given = None if pixels is None else streamer.codec.encode(pixels[None])
    for path, request in todo.items():
        if _write(streamer, request, path, given):
            batch.record(path)


def _write(streamer: Streamer, request: Request, path: Path, given: Tensor | None) -> bool:
    """Write one video, block by block as it is generated; print its path and speed. Returns whether it is whole.

    Ctrl-C ends the stream, and the file has what was made until then.
    """
    config, count, seconds, first = streamer.config, 0, 0.0, 0.0  # seconds of generation, without writing
    blocks = None if config.frames is None else config.attention.block_count(config.frames)
    whole = True
    with _sink(path, config.fps) as write, progress("generate", blocks, unit="block") as bar:
        start = time.perf_counter()
        try:
            for block in streamer.stream(request.prompts, request.seed, given):
                seconds += time.perf_counter() - start
                first = first or seconds
                write(block)
                count += len(block)
                bar.update()
                start = time.perf_counter()
        except (KeyboardInterrupt, BrokenPipeError):
            if not count:
                raise
            whole = False
    ended = "" if whole else f" (ended after {count} frames)"
    print(
        f"{path}: {str(request.prompts)!r}, seed {request.seed}{ended}: first block after {first:.3f} s, "
        f"{count / seconds:.0f} frames per second",
        file=sys.stderr if path == STDOUT else sys.stdout,
    )
    return whole


def _sink(path: Path, fps: int) -> AbstractContextManager[Callable[[Tensor], None]]:
    return piping(sys.stdout.buffer, fps) if path == STDOUT else writing(path, fps)
