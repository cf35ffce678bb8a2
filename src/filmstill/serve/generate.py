"""Prompts to video files with a distilled student."""

import time
from pathlib import Path

import torch

from filmstill.runtime.compute import check_device
from filmstill.runtime.progress import progress
from filmstill.runtime.video import check_format, save_video
from filmstill.serve.streamer import Files, Streamer


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
    Raises FilmstillError for a format, device, length or window that is not allowed.
    """
    check_format(out)
    check_device(device, "--device")
    streamer = Streamer.load(files, device, fast).with_stream(frames, window)
    streamer.encoder.prepare(prompts)
    requests = [(prompt, seed) for prompt in prompts for seed in seeds]
    blocks = len(streamer.rollout_config.attention.blocks(streamer.latent_shape[0]))
    for number, (prompt, seed) in enumerate(requests):
        path = out if len(requests) == 1 else out.with_stem(f"{out.stem}-{number:03d}")
        start, pieces, seconds = time.perf_counter(), [], []
        with progress("generate", blocks, unit="block") as bar:
            for piece in streamer.stream(prompt, seed):
                seconds.append(time.perf_counter() - start)
                pieces.append(piece)
                bar.update()
        video = torch.cat(pieces)
        save_video(video, path, streamer.fps)
        speed = len(video) / seconds[-1]
        print(f"{path}: {prompt!r}, seed {seed}: first block after {seconds[0]:.3f} s, {speed:.0f} frames per second")
