"""Signals that a training loop answers between two steps, all processes together."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filmstill.runtime import distributed
from filmstill.runtime.job_folder import JOB, is_superseded

SAVE = 1  # asked for: save, and go on; a larger number is the signal to save and leave by
ELSEWHERE = 1000
NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@contextmanager
def stop_requested() -> Iterator[Callable[[], int]]:
    """While the block runs, signals are only noted; gives a function that tells what they ask for since it last told.

    Ctrl-C, SIGTERM and SIGUSR2 (a cluster's time limit is near, or it wants the node) ask to save and leave. A job's
    SIGTERM comes before a kill that whoever sent it decides on: save, and go on until it comes. Every process must ask.
    """
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        asked.append(SAVE if number == signal.SIGTERM and JOB in os.environ else number)

    def told() -> int:
        noted = asked[:]
        del asked[: len(noted)]  # another may come meanwhile
        most = max(noted, default=0)
        if distributed.is_rank0() and is_superseded():
            most = ELSEWHERE
        if (most := distributed.all_reduce_max(most)) == ELSEWHERE:
            os._exit(1)  # without a word: what is on record of the job is by its other processes
        return most

    previous = {number: signal.signal(number, note) for number in NOTED}
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for late in [number for number in asked if number > SAVE][-1:]:  # after the last step
        signal.raise_signal(late)
