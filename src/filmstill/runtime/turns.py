"""Processes of one machine that start side by side, and are timed one at a time.

Notable: light to import, since whoever starts has to wait here before it takes the time of the one whose clock runs.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def shared_machine(turn: Path | None) -> Iterator[Callable[[], None]]:
    """Wait until nobody has the machine alone; what this yields waits until the rest of the block has.

    turn: a file that all of them name; None: a job of SLURM's, which has its cores, or its node, and waits for nobody.
    """
    if turn is None:
        yield lambda: None
        return
    with turn.open("a+") as lock:  # NFS gives a shared lock only to who may read, an exclusive one to who may write

        def alone() -> None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # of two that share it and ask for it alone, NFS would serve neither
            fcntl.flock(lock, fcntl.LOCK_EX)

        fcntl.flock(lock, fcntl.LOCK_SH)
        yield alone
