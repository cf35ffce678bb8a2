"""Telemetry of a training run: seconds per step by part, tokens per second, memory, GPU utilisation, expected end."""

import logging
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.flops import (
    Clip,
    TrainingRollout,
    critic_update_flops,
    generator_update_flops,
    regression_flops,
)
from filmstill.runtime import distributed
from filmstill.runtime.files import write_json
from filmstill.runtime.gpus import GIB, speed_of
from filmstill.runtime.job_folder import JOB
from filmstill.runtime.stopwatch import Stopwatch, watching
from filmstill.training.student_clips import StudentClips

LatentShape = tuple[int, int, int, int]  # F, C, H, W
FILE = "telemetry.json"  # in the work folder
SECONDS_BETWEEN_LINES = 60.0  # of a job's log

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepCost:
    """The work of one step, summed over ranks.

    tokens: video tokens trained on. flops(index): floating-point operations of step `index`.
    device: the device that the ranks compute on.
    """

    tokens: int
    flops: Callable[[int], float]
    device: torch.device

    @classmethod
    def of_regression(
        cls, model: VideoDiT, latent_shape: LatentShape, text_len: int, batch: int, attention: BlockCausal | None = None
    ) -> "StepCost":
        """One forward and one backward pass over whole clips; block-causal if `attention` is given (ODE init)."""
        clip = Clip.of(latent_shape, text_len)
        call = clip.causal(attention, batch) if attention else clip.whole(batch)
        flops = regression_flops(model.config, call, model.activation_checkpointing)
        return cls(batch * clip.tokens, lambda _index: flops, model.device)

    @classmethod
    def of_distillation(cls, clips: StudentClips, score: DiTConfig, branches: int, critics: list[str]) -> "StepCost":
        """One update per name in `critics` and one of the generator, each with its own window and exit step.

        score: sizes of the teacher. branches: of its guidance, 1 or 2.
        """
        generator, rollout = clips.generator, clips.rollout_config
        config, checkpointing = generator.config, generator.activation_checkpointing
        clip = Clip.of(clips.latent_shape, clips.encoder.text_len)

        def rolled(index: int, update: str) -> TrainingRollout:
            start, attention = clips.window_start(index, update), rollout.attention
            blocks = zip(attention.blocks(start + clip.frames), clips.exit_steps(index, update), strict=True)
            exits = [exit_step for (_, end), exit_step in blocks if end > start]
            passes = sum(exits) / len(exits) + 1
            steps = 0 if clips.streams else len(rollout.sigmas)  # what is carried on is not denoised again
            return TrainingRollout.of(clip, attention, start, steps, passes)

        def flops(index: int) -> float:
            critic = sum(critic_update_flops(config, rolled(index, update), checkpointing) for update in critics)
            made = generator_update_flops(config, score, branches, rolled(index, "generator"), checkpointing)
            return clips.batch * (critic + made)

        return cls(clips.batch * (len(critics) + 1) * clip.tokens, flops, generator.device)


class Telemetry:
    """Sums over the steps that this process has run since it started or resumed."""

    def __init__(self, cost: StepCost, folder: Path, watch: Stopwatch) -> None:
        self.cost, self.folder, self.watch = cost, folder, watch
        self.steps, self.seconds, self.flops = 0, 0.0, 0.0
        self.parts: dict[str, float] = defaultdict(float)
        self.last_logged = time.monotonic()

    @classmethod
    @contextmanager
    def of(cls, cost: StepCost, folder: Path) -> "Iterator[Telemetry]":
        """Telemetry whose stopwatch runs while the block runs."""
        with watching(cost.device) as watch:
            yield cls(cost, folder, watch)

    def add(self, index: int) -> None:
        """Count step `index`, which has just ended."""
        self.steps += 1
        self.flops += self.cost.flops(index)
        seconds, parts = self.watch.lap()
        self.seconds += seconds
        for name, spent in parts.items():
            self.parts[name] += spent

    def report(self, label: str, steps_left: int) -> None:
        """Write the figures so far to the work folder; log them at the end and, in a job, at most once per minute.

        Collective: every rank must call it.
        """
        figures = self._figures(steps_left)
        if not distributed.is_rank0():
            return
        write_json(self.folder / FILE, figures)
        if steps_left == 0 or (JOB in os.environ and time.monotonic() - self.last_logged > SECONDS_BETWEEN_LINES):
            log.info("%s: %s", label, summary(figures))
            self.last_logged = time.monotonic()

    def _figures(self, steps_left: int) -> dict[str, Any]:
        """Times are rank 0's; memory is that of the rank that used most."""
        steps, seconds = max(self.steps, 1), self.seconds
        speed = speed_of(self.cost.device)
        return {
            "world_size": distributed.world_size(),
            "seconds_per_step": seconds / steps,
            "seconds_by_part": {name: spent / steps for name, spent in sorted(self.parts.items())},
            "tokens_per_second": self.cost.tokens * self.steps / seconds,
            "peak_gib": distributed.all_reduce_max(self._peak_bytes()) / GIB,
            "model_flop_utilisation": self.flops / (seconds * speed * distributed.world_size()) if speed else None,
            "ends": _time_after(steps_left * seconds / steps) if steps_left else None,
        }

    def _peak_bytes(self) -> int:
        """Peak memory of this process: of the GPU where it computes on one, else resident."""
        if self.cost.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.cost.device)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _time_after(seconds: float) -> str:
    """Local date and time this many seconds from now."""
    return (datetime.now() + timedelta(seconds=seconds)).isoformat(" ", "minutes")


def summary(figures: dict[str, Any]) -> str:
    """The figures as one line."""
    total = figures["seconds_per_step"]
    parts = sorted(figures["seconds_by_part"].items(), key=lambda part: -part[1])
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts)
    utilisation = figures["model_flop_utilisation"]
    optional = "" if utilisation is None else f", MFU {utilisation:.1%}"
    optional += f", ends {figures['ends']}" if figures["ends"] else ""
    return (
        f"{total:.3g} s per step ({shares}), {figures['tokens_per_second']:,.0f} tokens/s, "
        f"peak {figures['peak_gib']:.1f} GiB per rank{optional}"
    )
