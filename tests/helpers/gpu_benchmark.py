"""GPU benchmarks at Wan's sizes: `make bench-gpu` prints a table for docs/benchmarks.md.

Weights are random; trained weights do not change the speed. Every row is compared with its floor: the operations that
the planner counts, at this GPU's rate for products of large bfloat16 matrices. `--tiny` runs the same rows in miniature
on a CPU, as a test of this script.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from filmstill.diffusion.rollout import rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.flops import (
    Clip,
    forward_flops,
    reading_flops,
    regression_flops,
    rollout_backward_flops,
    rollout_flops,
)
from filmstill.objectives.dmd import Objective
from filmstill.params.distill import Distill
from filmstill.training.distillation import Distillation
from filmstill.training.student_clips import StudentClips
from rollouts import rollout_config

WAN_1_3B, WAN_14B = DiTConfig(1536, 8960, 12, 30, 256, 4096, 16), DiTConfig(5120, 13824, 40, 40, 256, 4096, 16)
SCHEDULE, ATTENTION, STEPS = FlowSchedule(5.0), BlockCausal(3), 4
ROUNDS = 3


@dataclass(frozen=True)
class Bench:
    """Sizes and device of a benchmark: networks `small` and `large`, latents (F, C, H, W), `text_len` text tokens.

    Also stands for the text encoder, by `text_len`, `prepare` and `encode`.
    """

    device: str
    precision: torch.dtype
    small: DiTConfig
    large: DiTConfig
    latent_shape: tuple[int, int, int, int]
    text_len: int
    matrix: int  # rows and columns of the matrices that the rate is measured with

    @property
    def clip(self) -> Clip:
        return Clip.of(self.latent_shape, self.text_len)

    def network(self, config: DiTConfig, trained: bool = False) -> VideoDiT:
        """A network on the device: frozen, or in training with activation checkpointing."""
        with torch.device(self.device):
            model = VideoDiT(config)
        model.precision, model.activation_checkpointing = self.precision, trained
        if not trained:
            model.freeze()
        return model

    def encode(self, prompts: list[str]) -> Tensor:
        """Random encodings [B, text_len, text_dim]; a real encoder's are cached by `prepare` and cost as little."""
        return torch.randn(len(prompts), self.text_len, self.small.text_dim)

    def prepare(self, prompts: list[str]) -> None:
        """Does nothing: `encode` needs no preparation."""

    def clock(self) -> float:
        """Seconds, after all work on the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, action: Callable[[], object]) -> float:
        """Median seconds of ROUNDS runs, after a warm-up."""
        taken = []
        for _ in range(ROUNDS + 1):
            start = self.clock()
            action()
            taken.append(self.clock() - start)
        return statistics.median(taken[1:])


GPU = Bench("cuda", torch.bfloat16, WAN_1_3B, WAN_14B, (21, 16, 60, 104), 512, 8192)
TINY_SIZES = (DiTConfig(48, 96, 4, 2, 32, 16, 16), DiTConfig(64, 96, 4, 3, 32, 16, 16))
TINY = Bench("cpu", torch.float32, *TINY_SIZES, (6, 16, 4, 6), 8, 256)


def matrix_rate(bench: Bench) -> float:
    """Floating-point operations per second of a product of two large square matrices."""
    a, b = (torch.randn(bench.matrix, bench.matrix, device=bench.device, dtype=bench.precision) for _ in range(2))
    return 2 * bench.matrix**3 / bench.seconds(lambda: a @ b)


@torch.inference_mode()
def forward(bench: Bench, config: DiTConfig, compiled: bool = False) -> tuple[float, float]:
    """(seconds, operations) of one bidirectional pass, without reading the text."""
    model = bench.network(config)
    if compiled:
        for block in model.layers:
            block.compile()
    x = torch.randn(1, *bench.latent_shape, device=bench.device)
    text, t = model.read_text(bench.encode([""]).to(bench.device)), torch.tensor([500.0])
    return bench.seconds(lambda: model(x, t, text)), forward_flops(config, bench.clip.whole())


@torch.inference_mode()
def stream(bench: Bench) -> tuple[list[float], float]:
    """(seconds from the start to each finished block of a clip, operations of the whole rollout)."""
    model, config = bench.network(bench.small), rollout_config(SCHEDULE, STEPS, ATTENTION, 0.0)
    noise = torch.randn(1, config.noises, *bench.latent_shape, device=bench.device)
    times: list[float] = []
    for _ in range(2):  # the first warms up
        times, start = [], bench.clock()
        text = model.read_text(bench.encode([""]).to(bench.device))
        for _block in rollout(model, text, noise, config):
            times.append(bench.clock() - start)
    return times, rollout_flops(bench.small, bench.clip.blocks(ATTENTION), STEPS)


def updates(bench: Bench) -> dict[str, tuple[float, float, float]]:
    """(seconds, operations, peak bytes) of a critic's and a generator's update, by name; means of four updates.

    Micro-batches have one sample; activations are checkpointed.
    """
    generator, critic = (bench.network(bench.small, trained=True) for _ in range(2))
    objective = Objective(bench.network(bench.small), critic, SCHEDULE, 4.0, bench.encode([""]).to(bench.device))
    params = Distill(steps=100, batch=1, critic_updates=1, lr=2e-6, critic_lr=4e-7)
    config = rollout_config(SCHEDULE, STEPS, ATTENTION, 0.0)
    one_by_one = [range(sample, sample + 1) for sample in range(params.batch)]
    clips = StudentClips(generator, config, bench, ["a"] * 8, bench.latent_shape, 0, params.batch)
    run = Distillation(params, objective, clips, one_by_one)
    config, clip, blocks, counted = bench.small, bench.clip, bench.clip.blocks(ATTENTION), range(1, 5)
    operations = {
        "critic": regression_flops(config, clip.whole(), True),
        "generator": rollout_backward_flops(config, blocks, True)
        + reading_flops(config, clip.whole(2)) + reading_flops(config, clip.whole()),
    }  # fmt: skip
    found = {}
    for name, update in (("critic", lambda i: run._update_critic(i, "critic")), ("generator", run._update_generator)):
        if bench.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        update(0)
        start = bench.clock()
        for index in counted:
            update(index)
        seconds = (bench.clock() - start) / len(counted)
        exits = [run.clips.exit_step(index, name) for index in counted]
        rolled = rollout_flops(config, blocks, sum(step + 1 for step in exits) / len(exits))
        peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else float("nan")
        found[name] = (seconds, rolled + operations[name], peak)
    return found


def measure(bench: Bench) -> tuple[float, list[tuple[str, float, float, str]]]:
    """(matrix rate, rows of (name, seconds, operations, remark))."""
    rate = matrix_rate(bench)
    size = "×".join(map(str, bench.latent_shape))
    rows: list[tuple[str, float, float, str]] = []
    for name, config, compiled in (
        ("small forward", bench.small, False),
        ("small forward, layers compiled", bench.small, True),
        ("large forward", bench.large, False),
    ):
        if compiled and bench.device == "cpu":
            continue  # needs a C++ compiler on a CPU
        rows.append((f"{name}, latents {size}", *forward(bench, config, compiled), ""))
    times, operations = stream(bench)
    frames = 1 + 4 * (bench.latent_shape[0] - 1)
    apart = ", ".join(f"{b - a:.3f}" for a, b in zip([0.0, *times], times, strict=False))
    remark = f"{frames / times[-1]:.1f} frames per second without VAE; seconds by block: {apart}"
    rows.append((f"stream of {len(times)} blocks, {STEPS} steps", times[-1], operations, remark))
    for name, (seconds, counted, peak) in updates(bench).items():
        rows.append((f"{name} update, micro-batch 1, checkpointing", seconds, counted, f"peak {peak / 2**30:.1f} GiB"))
    return rate, rows


def main(words: list[str]) -> None:
    bench = TINY if "--tiny" in words else GPU
    if bench.device == "cuda" and not torch.cuda.is_available():
        sys.exit("make bench-gpu: torch sees no CUDA device here (gpu_benchmark.py --tiny runs on a CPU)")
    rate, rows = measure(bench)
    name = torch.cuda.get_device_name() if bench.device == "cuda" else "CPU"
    table = Table("what", "seconds", "floor", "ratio", "", title=f"{name}: matrices at {rate / 1e12:.3g} TFLOP/s")
    for what, seconds, operations, remark in rows:
        floor = operations / rate
        table.add_row(what, f"{seconds:.4f}", f"{floor:.4f}", f"{seconds / floor:.2f}", remark)
    Console(width=180).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
