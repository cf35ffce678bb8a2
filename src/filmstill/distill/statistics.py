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

from filmstill.plan.hardware import GIB, speed_of
from filmstill.runtime import distributed
from filmstill.runtime.files import write_json
from filmstill.runtime.job_folder import JOB
from filmstill.runtime.stopwatch import Stopwatch, watching

FILE = "statistics.json"  # in the work folder
SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class Worth:
    """What a step does over all processes: `tokens` of video trained on, `flops(index)` floating-point operations.
    device: what the processes compute on."""

    tokens: int
    flops: Callable[[int], float]
    device: torch.device


class Statistics:
    """Sums over the steps of this process's run, since it began or resumed."""

    def __init__(self, worth: Worth, folder: Path, watch: Stopwatch) -> None:
        self.worth, self.folder, self.watch = worth, folder, watch
        self.steps, self.seconds, self.flops = 0, 0.0, 0.0
        self.parts: dict[str, float] = defaultdict(float)
        self.said = time.monotonic()

    @classmethod
    @contextmanager
    def of(cls, worth: Worth, folder: Path) -> "Iterator[Statistics]":
        """While the block runs, its time is taken."""
        with watching(worth.device) as watch:
            yield cls(worth, folder, watch)

    def add(self, index: int) -> None:
        """Step `index` is over."""
        self.steps += 1
        self.flops += self.worth.flops(index)
        seconds, parts = self.watch.lap()
        self.seconds += seconds
        for name, spent in parts.items():
            self.parts[name] += spent

    def report(self, label: str, steps_left: int) -> None:
        """Write the figures so far to the work folder; at the end, and now and then in a job, also in words.

        Every process must ask.
        """
        figures = self._figures(steps_left)
        if not distributed.is_first():
            return
        write_json(self.folder / FILE, figures)
        if steps_left == 0 or (JOB in os.environ and time.monotonic() - self.said > SECONDS_BETWEEN_LINES):
            tqdm.write(f"{label}: {in_words(figures)}", file=sys.stderr)
            self.said = time.monotonic()

    def _figures(self, steps_left: int) -> dict[str, Any]:
        """Times are the first process's, memory is the fullest one's."""
        steps, seconds = max(self.steps, 1), self.seconds
        speed = speed_of(self.worth.device)
        return {
            "processes": distributed.size(),
            "seconds_a_step": seconds / steps,
            "seconds_by_part": {name: spent / steps for name, spent in sorted(self.parts.items())},
            "tokens_a_second": self.worth.tokens * self.steps / seconds,
            "peak_gib": distributed.highest(self._peak_bytes()) / GIB,
            "model_flop_utilisation": self.flops / (seconds * speed * distributed.size()) if speed else None,
            "ends": _in(steps_left * seconds / steps) if steps_left else None,
        }

    def _peak_bytes(self) -> int:
        """The most memory that this process has held at once."""
        if self.worth.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.worth.device)
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
