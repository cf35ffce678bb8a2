"""Where a step's time goes: parts named where they happen, collected once a step.

Notable: a part inside another takes its time out of it, so that parts add up to the step; on a GPU stamps are events in
its stream, read when the step is over, so nothing waits for them; collectives run on streams of their own there, beside
the parts: they count by their own length, which is no part of the sum.
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
COLLECTIVES = ("all_gather_single", "reduce_scatter_single", "all_reduce")  # by which FSDP2 gathers and sums

Stamp = Any  # seconds, or an event of the GPU's


class Stopwatch:
    """Seconds by part since the last lap."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._parts = [OTHER]
        self._stamps: list[tuple[str, Stamp]] = [(OTHER, self._stamp())]
        self._beside: list[tuple[Stamp, Stamp]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._mark()
        self._parts.append(name)
        try:
            yield
        finally:
            self._mark()
            self._parts.pop()

    @contextmanager
    def collective(self) -> Iterator[None]:
        if not self._on_gpu:
            with self.part(COMMUNICATION):
                yield
            return
        began = self._stamp()
        yield
        self._beside.append((began, self._stamp()))

    def lap(self) -> tuple[float, dict[str, float]]:
        """Seconds since the lap before, in all and by part, and begin another."""
        self._mark()
        seconds: dict[str, float] = defaultdict(float)
        for (_, began), (name, ended) in zip(self._stamps, self._stamps[1:], strict=False):
            seconds[name] += self._between(began, ended)
        whole = sum(seconds.values())
        for began, ended in self._beside:
            seconds[COMMUNICATION] += self._between(began, ended)
        self._stamps, self._beside = self._stamps[-1:], []
        return whole, dict(seconds)

    def _mark(self) -> None:
        """What has passed since the last mark belongs to the part at work."""
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


_watch: Stopwatch | None = None  # one a process, so that a part is named where it happens and by no argument


def part(name: str) -> AbstractContextManager[None]:
    """The block is this part of the step; nothing where nobody watches."""
    return nullcontext() if _watch is None else _watch.part(name)


@contextmanager
def watching(device: torch.device) -> Iterator[Stopwatch]:
    """While the block runs, parts and collectives are timed."""
    global _watch
    library = {name: getattr(dist, name) for name in COLLECTIVES}
    _watch = watch = Stopwatch(device)
    for name, collective in library.items():
        setattr(dist, name, _timed(watch, collective))
    try:
        yield watch
    finally:
        _watch = None
        for name, collective in library.items():
            setattr(dist, name, collective)


def _timed(watch: Stopwatch, collective: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(collective)
    def run(*given: Any, **named: Any) -> Any:
        with watch.collective():
            return collective(*given, **named)

    return run
