"""What every rank of `cluster check`'s job runs: look at the node, all-reduce with the other ranks, write a report.

check.py starts it as `python -m filmstill.cluster.check_node FOLDER`. Where Python itself cannot start, only
`shell-<rank>`, written by the shell, and the rank's stderr exist.
"""

import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import filmstill
from filmstill.cluster.rendezvous import rendezvous
from filmstill.runtime.files import write_json

LOGIN_CLOCK = "login-clock"  # file to which the login node keeps writing its time
NUMBERS = 2**24  # fp32 values of the all-reduce: 64 MiB
TIMES = 3  # all-reduces that are timed
VISIBLE_SECONDS = 30.0  # for the other ranks to start and their files to become visible over NFS
GROUP_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True)
class Software:
    """Versions of the software on a machine, and the folder that filmstill was imported from."""

    python: str
    torch: str
    cuda: str | None  # version that torch was built for
    filmstill: str

    @classmethod
    def here(cls) -> "Software":
        """The software of this process."""
        folder = str(Path(filmstill.__file__).resolve().parent)
        return cls(platform.python_version(), torch.__version__, torch.version.cuda, folder)


@dataclass(frozen=True)
class RankReport:
    """What one rank found on its node."""

    node: str
    host: str
    software: Software
    gpus: list[str]
    sees_login: bool  # whether it sees the login node's file
    unseen: list[int]  # ranks whose report it does not see
    backend: str | None = None  # of the all-reduce; None: it failed, or did not start because a rank was missing
    right: bool = False  # whether the sum was right
    seconds: float = 0.0  # of one all-reduce of 64 MiB
    bandwidth: float = 0.0  # bytes/s over each rank's link: the bus bandwidth of nccl-tests
    error: str | None = None


def main(folder: Path) -> None:
    """Write report-<rank>.json at the start and again at the end, so that a rank that is killed has reported too."""
    world = rendezvous()
    report = RankReport(
        node=os.environ["SLURMD_NODENAME"],
        host=platform.node(),
        software=Software.here(),
        gpus=[_gpu(index) for index in range(torch.cuda.device_count())],
        sees_login=(folder / LOGIN_CLOCK).exists(),
        unseen=[],
        error="it did not end",
    )
    path = folder / f"report-{world.rank}.json"
    write_json(path, asdict(report))
    if unseen := _unseen(folder, world.world_size):
        write_json(path, asdict(replace(report, unseen=unseen, error=None)))
        return
    try:
        write_json(path, asdict(report) | _all_reduce(world.local_rank) | {"error": None})
    except Exception as error:  # any error of torch, NCCL or gloo is a finding to report
        write_json(path, asdict(report) | {"error": " ".join(str(error).split())[:300]})
        os._exit(1)  # torch's threads may never end


def _gpu(index: int) -> str:
    """Name and memory of a GPU."""
    properties = torch.cuda.get_device_properties(index)
    return f"{properties.name} {properties.total_memory / 2**30:.0f} GiB"


def _unseen(folder: Path, world_size: int) -> list[int]:
    """Ranks whose report has not become visible within VISIBLE_SECONDS."""
    end = time.monotonic() + VISIBLE_SECONDS
    while True:
        there = set(os.listdir(folder))
        unseen = [rank for rank in range(world_size) if f"report-{rank}.json" not in there]
        if not unseen or time.monotonic() > end:
            return unseen
        time.sleep(0.2)


def _all_reduce(local_rank: int) -> dict[str, object]:
    """Test and time an all-reduce: over NCCL where every rank has a GPU, else over gloo. Collective."""
    dist.init_process_group("gloo", timeout=GROUP_TIMEOUT)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    has_gpu: list[bool] = [False] * world_size
    dist.all_gather_object(has_gpu, local_rank < torch.cuda.device_count())
    backend, group, device = "gloo", None, torch.device("cpu")
    if all(has_gpu):
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        backend, group = "nccl", dist.new_group(backend="nccl", timeout=GROUP_TIMEOUT)
    numbers = torch.full((NUMBERS,), rank + 1.0, device=device)
    dist.all_reduce(numbers, group=group)
    right = bool((numbers == world_size * (world_size + 1) / 2).all())  # waits for the GPU
    start = time.perf_counter()
    for _ in range(TIMES):
        dist.all_reduce(numbers, group=group)
    numbers[0].item()
    seconds = (time.perf_counter() - start) / TIMES
    moved = 2 * (world_size - 1) / world_size * numbers.nbytes
    dist.destroy_process_group()
    return {"backend": backend, "right": right, "seconds": seconds, "bandwidth": moved / seconds}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
