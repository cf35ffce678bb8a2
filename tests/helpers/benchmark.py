"""CPU benchmarks: `make bench` prints a table of times before and after an optimisation, and their ratios.

The networks have random weights and the embedded profile's sizes; trained weights do not change their speed.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from filmstill.diffusion.rollout import rollout
from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.kv_cache import KVCache
from filmstill.models.rope import rope_table, rotate
from filmstill.models.weights import config_of
from filmstill.params.compute import Compute
from filmstill.params.model import Model
from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED, FPS, World
from filmstill.runtime.compute import prepare
from filmstill.runtime.video import save_video
from filmstill.training.teacher import new_model
from rollouts import rollout_config

BATCH = Samples().batch
SIZES, WORLD, SCHEDULE = Model(), World(), FlowSchedule(3.0)
SHAPE = WORLD.latent_shape(SIZES.in_channels)


def seconds(*actions: Callable[[], object], rounds: int = 7) -> list[float]:
    """Median seconds of each action; rounds alternate between actions, so that other load affects all alike."""
    for action in actions:
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, taken in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def rotated_by_parts(x: Tensor, table: Tensor) -> Tensor:
    """`rotate` with real instead of complex numbers."""
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = table.real, table.imag
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1).flatten(-2)


def rotary() -> list[float]:
    """Seconds of rotary embedding with real and with complex numbers, forward and backward."""
    x = torch.randn(24, 4, 192, 32, requires_grad=True)
    table = rope_table(32, 0, 12, 4, 4, x.device)
    return seconds(lambda: rotated_by_parts(x, table).sum().backward(), lambda: rotate(x, table).sum().backward())


def mp4() -> list[float]:
    """Seconds of writing an mp4 by imageio's plugin and by `save_video`."""
    video = torch.rand(12, 3, 32, 32)
    frames = np.random.default_rng(0).integers(0, 255, (12, 128, 128, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        ours, plugin = Path(folder) / "a.mp4", Path(folder) / "b.mp4"
        return seconds(
            lambda: iio.imwrite(plugin, frames, plugin="pyav", codec="libx264", fps=FPS[EMBEDDED]),
            lambda: save_video(video, ours, FPS[EMBEDDED]),
        )


@torch.inference_mode()
def clips() -> tuple[list[float], list[float]]:
    """Seconds of a block's context pass (all layers, up to the last keys), and of a clip (teacher, student)."""
    model = new_model(config_of(SIZES), 0)
    texts = torch.randn(BATCH, SIZES.text_len, SIZES.text_dim)
    text, noise = model.read_text(texts), torch.randn(BATCH, 4, *SHAPE)
    attention = BlockCausal(3)
    config = rollout_config(SCHEDULE, 4, attention, 0.0)
    velocity = guided(model, texts, torch.zeros(1, SIZES.text_len, SIZES.text_dim), 3.0)
    block, time_zero = noise[:, 0, :3], torch.zeros(BATCH)

    def cache() -> KVCache:
        return KVCache(attention, SHAPE[0])

    context = seconds(
        lambda: model(block, time_zero, text, cache=cache()),
        lambda: model.remember(block, time_zero, text, cache()),
        rounds=25,
    )
    teacher, student = seconds(
        lambda: sample(velocity, noise[:, 0], SCHEDULE, 48, keep=[]),
        lambda: list(rollout(model, text, noise, config)),
        rounds=3,
    )
    return context, [teacher / BATCH, student / BATCH]


def main() -> None:
    prepare("cpu", Compute().threads)
    context, clip = clips()
    rows = {
        "rotary embedding, forward and backward, [24, 4, 192, 32]: real numbers, complex numbers": rotary(),
        "an mp4 of 12 frames at 128 pixels: imageio's PyAV plugin, PyAV": mp4(),
        f"context pass of a block, {BATCH} clips: whole network, up to the last keys": context,
        f"a clip in a batch of {BATCH}: teacher (48 steps, guided), student (4 steps)": clip,
    }
    table = Table("what: before, after", "before", "after", "ratio")
    for what, (before, after) in rows.items():
        table.add_row(what, f"{before * 1e3:.2f} ms", f"{after * 1e3:.2f} ms", f"{before / after:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
