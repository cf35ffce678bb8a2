"""Prompts to video files with a distilled student."""

import time
from pathlib import Path

from filmstill.models.load import pixel_frames
from filmstill.runtime.compute import check_device
from filmstill.runtime.files import require_writable
from filmstill.runtime.progress import progress
from filmstill.runtime.video import check_format, check_length, writing
from filmstill.serve.stream_config import StreamConfig
from filmstill.serve.streamer import Files, Streamer, compute_on


def generate(
    prompts: list[str],
    seeds: list[int],
    out: Path,
    files: Files,
    frames: int | None,
    window: int | None,
    device: str,
    fast: bool,
) -> None:
    """Write one video per prompt and seed to `out`; several get numbers.

    frames and window are latent frames, None for those of the training; fast decodes with the release's small decoder.
    Raises FilmstillError, before anything is loaded, for a format, target, device, length or window that is not
    allowed.
    """
    requests = [(prompt, seed) for prompt in prompts for seed in seeds]
    paths = [out] if len(requests) == 1 else [out.with_stem(f"{out.stem}-{n:03d}") for n in range(len(requests))]
    check_format(out)
    for path in paths:
        require_writable(path)
    check_device(device, "--device")
    config, compute = StreamConfig.read(files.student).resized(frames, window), compute_on(device)
    check_length(out, pixel_frames(files.codec, config.frames), len(paths))
    config.check_memory(compute)
    streamer = Streamer.load(files, config, compute, fast)
    streamer.encoder.prepare(prompts)
    for path, (prompt, seed) in zip(paths, requests, strict=True):
        _write(streamer, prompt, seed, path)


def _write(streamer: Streamer, prompt: str, seed: int, path: Path) -> None:
    """Write one video, block by block as it is generated; print its path and speed."""
    config, count, seconds, first = streamer.config, 0, 0.0, 0.0  # seconds of generation, without writing
    blocks = config.attention.block_count(config.frames)
    with writing(path, config.fps) as write, progress("generate", blocks, unit="block") as bar:
        start = time.perf_counter()
        for block in streamer.stream(prompt, seed):
            seconds += time.perf_counter() - start
            first = first or seconds
            count += len(block)
            write(block)
            bar.update()
            start = time.perf_counter()
    print(f"{path}: {prompt!r}, seed {seed}: first block after {first:.3f} s, {count / seconds:.0f} frames per second")
