"""Free memory of the host, within the limits of the control groups that contain this process (SLURM, containers)."""

from collections.abc import Iterator
from pathlib import Path

import psutil

MEMBERSHIP, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Names of a group's limit, its use, and the file pages in it, which the kernel drops before it lacks memory.
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))


def free_host_memory() -> int:
    """Bytes that this process can still take; psutil alone knows the machine's memory only."""
    membership = MEMBERSHIP.read_text() if MEMBERSHIP.is_file() else ""
    return min([psutil.virtual_memory().available, *free_in_groups(membership, MOUNT)])


def free_in_groups(membership: str, mount: Path) -> Iterator[int]:
    """Free bytes of every group with a limit: those in `membership` (text of /proc/self/cgroup) and those above them.

    In a container the mounted root is the container's own group, whatever path `membership` has.
    """
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, names = mount, V2
        elif "memory" in controllers.split(","):
            root, names = mount / "memory", V1
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents[: len(group.parents) - len(root.parents)]):
            try:
                yield _free(folder, *names)
            except (OSError, ValueError, KeyError):  # no such group in here, or its limit is "max"
                continue


def _free(folder: Path, limit: str, used: str, file_pages: tuple[str, str]) -> int:
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    most, taken = (int((folder / name).read_text()) for name in (limit, used))
    return max(0, most - taken + sum(int(statistics[name]) for name in file_pages))
