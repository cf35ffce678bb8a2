"""Run a function on several ranks of one job, on this machine."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing

from filmstill.runtime import distributed
from filmstill.runtime.logs import log_to_stderr


def run_on(processes: int, function: Callable[..., None], *given: object, sharding: str = "full", per_node: int = 0):
    """Call `function(*given)` on every rank over gloo; raises with the traceback of a rank that failed.

    processes: world size. per_node: ranks that count as one node for hybrid sharding.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    variables["LOCAL_WORLD_SIZE"] = str(per_node or processes)
    multiprocessing.spawn(_process, (variables, sharding, function, given), processes)


def _process(rank: int, variables: dict[str, str], sharding: str, function: Callable[..., None], given: tuple) -> None:
    os.environ.update(variables, RANK=str(rank))
    torch.set_num_threads(1)
    log_to_stderr()  # as a stage does
    try:
        distributed.start("cpu", sharding, offload=False)
        function(*given)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        distributed.stop()


def results(folder: Path, name: str) -> Path:
    """Path for the results of this rank."""
    return folder / f"{name}-{distributed.rank()}"
