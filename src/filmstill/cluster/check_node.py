"""What every process of `cluster check`'s job does: look around, all-reduce with the others, report in a file.

Run by check.py as `python -m filmstill.cluster.probe FOLDER`; a process that cannot even start python has left
`hello-<rank>`, which the shell wrote, and what python said.
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
from filmstill.cluster.meeting import meet
from filmstill.runtime.files import write_json

LOGIN = "login"  # the file that the login keeps writing its time to
NUMBERS = 2**24  # fp32, 64 MiB
TIMES = 3
SECONDS_TO_SEE = 30.0  # the others' files: as long as they may take to start, and NFS to show them
SECONDS_TO_MEET = timedelta(seconds=60)


@dataclass(frozen=True)
class Software:
    """What runs, and where it comes from."""

    python: str
    torch: str
    cuda: str | None  # that torch was built for
    filmstill: str

    @classmethod
    def here(cls) -> "Software":
        folder = str(Path(filmstill.__file__).resolve().parent)
        return cls(platform.python_version(), torch.__version__, torch.version.cuda, folder)


@dataclass(frozen=True)
class Report:
    """What one process found."""

    node: str
    host: str
    software: Software
    gpus: list[str]
    sees_login: bool
    unseen: list[int]  # processes whose report does not show up here
    backend: str | None = None  # of the all-reduce; None: it failed, or not every process came so far
    right: bool = False
    seconds: float = 0.0  # one all-reduce of 64 MiB
    bandwidth: float = 0.0  # bytes/s through each process's link, as nccl-tests count (bus bandwidth)
    error: str | None = None


def main(folder: Path) -> None:
    """Write report-<rank>.json, and again with what came next: a process that is killed meanwhile has reported."""
    world = meet()
    report = Report(
        node=os.environ["SLURMD_NODENAME"],
        host=platform.node(),
        software=Software.here(),
        gpus=[_gpu(index) for index in range(torch.cuda.device_count())],
        sees_login=(folder / LOGIN).exists(),
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
    except Exception as error:  # whatever torch, NCCL or gloo raise: it is what was asked for
        write_json(path, asdict(report) | {"error": " ".join(str(error).split())[:300]})
        os._exit(1)  # threads of torch may wait for ever


def _gpu(index: int) -> str:
    about = torch.cuda.get_device_properties(index)
    return f"{about.name} {about.total_memory / 2**30:.0f} GiB"


def _unseen(folder: Path, processes: int) -> list[int]:
    """The processes whose report has not shown up within SECONDS_TO_SEE."""
    end = time.monotonic() + SECONDS_TO_SEE
    while True:
        there = set(os.listdir(folder))
        unseen = [rank for rank in range(processes) if f"report-{rank}.json" not in there]
        if not unseen or time.monotonic() > end:
            return unseen
        time.sleep(0.2)


def _all_reduce(local_rank: int) -> dict[str, object]:
    """Over NCCL where every process has a GPU, over gloo otherwise."""
    dist.init_process_group("gloo", timeout=SECONDS_TO_MEET)
    rank, processes = dist.get_rank(), dist.get_world_size()
    has_gpu: list[bool] = [False] * processes
    dist.all_gather_object(has_gpu, local_rank < torch.cuda.device_count())
    backend, group, device = "gloo", None, torch.device("cpu")
    if all(has_gpu):
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        backend, group = "nccl", dist.new_group(backend="nccl", timeout=SECONDS_TO_MEET)
    numbers = torch.full((NUMBERS,), rank + 1.0, device=device)
    dist.all_reduce(numbers, group=group)
    right = bool((numbers == processes * (processes + 1) / 2).all())  # waits for the GPU
    start = time.perf_counter()
    for _ in range(TIMES):
        dist.all_reduce(numbers, group=group)
    numbers[0].item()
    seconds = (time.perf_counter() - start) / TIMES
    moved = 2 * (processes - 1) / processes * numbers.nbytes
    dist.destroy_process_group()
    return {"backend": backend, "right": right, "seconds": seconds, "bandwidth": moved / seconds}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
