"""Run a function on several processes of one job, as a cluster would start them."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing

from filmstill.runtime import distributed


def run_on(processes: int, function: Callable[..., None], *given: object, sharding: str = "full", per_node: int = 0):
    """Call `function(*given)` on every process over gloo; raises with the traceback of a process that failed.

    per_node: processes that count as one node's, for hybrid sharding.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    places["LOCAL_WORLD_SIZE"] = str(per_node or processes)
    multiprocessing.spawn(_process, (places, sharding, function, given), processes)


def _process(rank: int, places: dict[str, str], sharding: str, function: Callable[..., None], given: tuple) -> None:
    os.environ.update(places, RANK=str(rank))
    torch.set_num_threads(1)
    try:
        distributed.start("cpu", sharding, offload=False)
        function(*given)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        distributed.stop()


def results(folder: Path, name: str) -> Path:
    """Where a process writes what it found."""
    return folder / f"{name}-{distributed.rank()}"
