"""What a run costs as it goes: seconds a step by part, tokens a second, memory, the GPU's use, when it ends."""

import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.flops import Clip, critic_update_flops, generator_update_flops, regression_flops
from filmstill.runtime import distributed
from filmstill.runtime.files import write_json
from filmstill.runtime.gpus import GIB, speed_of
from filmstill.runtime.job_folder import JOB
from filmstill.runtime.stopwatch import Stopwatch, watching

LatentShape = tuple[int, int, int, int]  # F, C, H, W
FILE = "telemetry.json"  # in the work folder
SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class StepCost:
    """What a step does over all ranks: `tokens` of video trained on, `flops(index)` floating-point operations.
    device: what the ranks compute on."""

    tokens: int
    flops: Callable[[int], float]
    device: torch.device

    @classmethod
    def of_regression(
        cls, model: VideoDiT, latent_shape: LatentShape, text_len: int, batch: int, attention: BlockCausal | None = None
    ) -> "StepCost":
        """One forward and one backward pass over whole clips; block-causal under `attention` (ODE init)."""
        clip = Clip.of(latent_shape, text_len)
        call = clip.causal(attention, batch) if attention else clip.whole(batch)
        flops = regression_flops(model.config, call, model.activation_checkpointing)
        return cls(batch * clip.tokens, lambda _index: flops, model.device)

    @classmethod
    def of_distillation(
        cls,
        generator: VideoDiT,
        score: DiTConfig,
        latent_shape: LatentShape,
        text_len: int,
        attention: BlockCausal,
        batch: int,
        critics: list[str],
        exit_step: Callable[[int, str], int],
    ) -> "StepCost":
        """Critic updates and one of the generator; the operations follow the exit steps that are drawn."""
        config, clip = generator.config, Clip.of(latent_shape, text_len)

        def rolled(index: int, update: str) -> tuple[Clip, BlockCausal, float, bool]:
            return clip, attention, exit_step(index, update) + 1, generator.activation_checkpointing

        def flops(index: int) -> float:
            critic = sum(critic_update_flops(config, *rolled(index, update)) for update in critics)
            return batch * (critic + generator_update_flops(config, score, *rolled(index, "generator")))

        return cls(batch * (len(critics) + 1) * clip.tokens, flops, generator.device)


class Telemetry:
    """Sums over the steps of this process's run, since it began or resumed."""

    def __init__(self, cost: StepCost, folder: Path, watch: Stopwatch) -> None:
        self.cost, self.folder, self.watch = cost, folder, watch
        self.steps, self.seconds, self.flops = 0, 0.0, 0.0
        self.parts: dict[str, float] = defaultdict(float)
        self.said = time.monotonic()

    @classmethod
    @contextmanager
    def of(cls, cost: StepCost, folder: Path) -> "Iterator[Telemetry]":
        """While the block runs, its time is taken."""
        with watching(cost.device) as watch:
            yield cls(cost, folder, watch)

    def add(self, index: int) -> None:
        """Step `index` is over."""
        self.steps += 1
        self.flops += self.cost.flops(index)
        seconds, parts = self.watch.lap()
        self.seconds += seconds
        for name, spent in parts.items():
            self.parts[name] += spent

    def report(self, label: str, steps_left: int) -> None:
        """Write the figures so far to the work folder; at the end, and now and then in a job, also in words.

        Every process must ask.
        """
        figures = self._figures(steps_left)
        if not distributed.is_rank0():
            return
        write_json(self.folder / FILE, figures)
        if steps_left == 0 or (JOB in os.environ and time.monotonic() - self.said > SECONDS_BETWEEN_LINES):
            tqdm.write(f"{label}: {in_words(figures)}", file=sys.stderr)
            self.said = time.monotonic()

    def _figures(self, steps_left: int) -> dict[str, Any]:
        """Times are the first process's, memory is the fullest one's."""
        steps, seconds = max(self.steps, 1), self.seconds
        speed = speed_of(self.cost.device)
        return {
            "processes": distributed.world_size(),
            "seconds_a_step": seconds / steps,
            "seconds_by_part": {name: spent / steps for name, spent in sorted(self.parts.items())},
            "tokens_a_second": self.cost.tokens * self.steps / seconds,
            "peak_gib": distributed.all_reduce_max(self._peak_bytes()) / GIB,
            "model_flop_utilisation": self.flops / (seconds * speed * distributed.world_size()) if speed else None,
            "ends": _in(steps_left * seconds / steps) if steps_left else None,
        }

    def _peak_bytes(self) -> int:
        """The most memory that this process has held at once."""
        if self.cost.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.cost.device)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _in(seconds: float) -> str:
    """The time of day so much later."""
    return (datetime.now() + timedelta(seconds=seconds)).isoformat(" ", "minutes")


def in_words(figures: dict[str, Any]) -> str:
    """A summary as one line."""
    whole = figures["seconds_a_step"]
    parts = sorted(figures["seconds_by_part"].items(), key=lambda part: -part[1])
    shares = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in parts)
    used = figures["model_flop_utilisation"]
    known = "" if used is None else f", MFU {used:.1%}"
    known += f", ends {figures['ends']}" if figures["ends"] else ""
    return (
        f"{figures['seconds_a_step']:.3g} s a step ({shares}), {figures['tokens_a_second']:,.0f} tokens/s, "
        f"peak {figures['peak_gib']:.1f} GiB a process{known}"
    )
