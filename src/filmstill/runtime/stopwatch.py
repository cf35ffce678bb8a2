"""Telemetry: the time of each named part of a training step. Nothing here changes a result.

Time spent in a nested part is not counted in the outer one, so the parts add up to the step. On a GPU, timestamps are
events in its stream that are read after the step, so nothing waits for them. Collectives run on other streams there,
beside the parts: their durations are reported too, but are not part of the sum.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist

OTHER, COMMUNICATION = "other", "communication"
COLLECTIVES = ("all_gather_single", "reduce_scatter_single", "all_reduce")  # used by FSDP2 of the pinned torch

Stamp = Any  # seconds, or a torch.cuda.Event


class Stopwatch:
    """Measures seconds per part since the last lap."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._parts = [OTHER]
        self._stamps: list[tuple[str, Stamp]] = [(OTHER, self._stamp())]
        self._collectives: list[tuple[Stamp, Stamp]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as part `name`."""
        self._mark()
        self._parts.append(name)
        try:
            yield
        finally:
            self._mark()
            self._parts.pop()

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Count the block's time as communication."""
        if not self._on_gpu:
            with self.part(COMMUNICATION):
                yield
            return
        began = self._stamp()
        yield
        self._collectives.append((began, self._stamp()))

    def lap(self) -> tuple[float, dict[str, float]]:
        """(total seconds, seconds by part) since the last lap; starts the next lap."""
        self._mark()
        seconds: dict[str, float] = defaultdict(float)
        for (_, began), (name, ended) in zip(self._stamps, self._stamps[1:], strict=False):
            seconds[name] += self._between(began, ended)
        total = sum(seconds.values())
        for began, ended in self._collectives:
            seconds[COMMUNICATION] += self._between(began, ended)
        self._stamps, self._collectives = self._stamps[-1:], []
        return total, dict(seconds)

    def _mark(self) -> None:
        """Count the time since the last mark as the innermost open part."""
        self._stamps.append((self._parts[-1], self._stamp()))

    def _stamp(self) -> Stamp:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, began: Stamp, ended: Stamp) -> float:
        if not self._on_gpu:
            return ended - began
        ended.synchronize()
        return began.elapsed_time(ended) / 1000


_watch: Stopwatch | None = None  # global, so that code names its parts without passing a stopwatch


def part(name: str) -> AbstractContextManager[None]:
    """Count the block's time as part `name` of the step; no effect outside `watching`."""
    return nullcontext() if _watch is None else _watch.part(name)


@contextmanager
def watching(device: torch.device) -> Iterator[Stopwatch]:
    """Time parts and collectives while the block runs; a collective that another torch lacks goes untimed."""
    global _watch
    originals = {name: getattr(dist, name) for name in COLLECTIVES if hasattr(dist, name)}
    _watch = watch = Stopwatch(device)
    for name, collective in originals.items():
        setattr(dist, name, _timed(watch, collective))
    try:
        yield watch
    finally:
        _watch = None
        for name, collective in originals.items():
            setattr(dist, name, collective)


def _timed(watch: Stopwatch, collective: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(collective)
    def run(*args: Any, **kwargs: Any) -> Any:
        with watch.collective():
            return collective(*args, **kwargs)

    return run
