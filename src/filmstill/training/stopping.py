"""Signals that a training loop handles between two steps, together on all ranks."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filmstill.runtime import distributed
from filmstill.runtime.job_folder import JOB, is_superseded

SAVE_AND_CONTINUE = 1  # request to save; a larger one is the number of the signal that asked to save and exit
SUPERSEDED = 1000  # rank 0 found that SLURM has started the job again elsewhere
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Only record signals while the block runs; yields a function that returns what they request.

    The function returns the largest request since its last call, 0 if there was none. Collective: every rank must
    call it.

    - SIGINT (Ctrl-C) and SIGUSR2 (a cluster's time limit is near, or the node is needed): save and exit.
    - SIGTERM: save and exit; in a cluster's job save and continue, since its sender decides whether a kill follows.

    A process whose job SLURM has started again elsewhere exits in the function with code 1, without a message.
    """
    requests: list[int] = []

    def record(number: int, _frame: object) -> None:
        requests.append(SAVE_AND_CONTINUE if number == signal.SIGTERM and JOB in os.environ else number)

    def poll() -> int:
        pending = requests[:]
        del requests[: len(pending)]  # a signal may arrive between these two lines
        request = max(pending, default=0)
        if distributed.is_rank0() and is_superseded():
            request = SUPERSEDED
        if (request := distributed.all_reduce_max(request)) == SUPERSEDED:
            os._exit(1)  # silent: the job's records belong to the processes that replaced these
        return request

    previous = {number: signal.signal(number, record) for number in HANDLED}
    try:
        yield poll
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for late in [number for number in requests if number > SAVE_AND_CONTINUE][-1:]:  # arrived after the last poll
        signal.raise_signal(late)
