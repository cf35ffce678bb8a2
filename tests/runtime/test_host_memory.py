"""Free memory within the limits of control groups, by copies of Linux's files."""

from pathlib import Path

import psutil
import pytest

from filmstill.runtime import host_memory
from filmstill.runtime.host_memory import free_host_memory, free_in_groups


def group(folder: Path, limit: object, used: int, file_pages: int = 0, version: int = 2) -> None:
    limits, uses, pages = host_memory.V2 if version == 2 else host_memory.V1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limits).write_text(f"{limit}\n")
    (folder / uses).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\n{pages[0]} {file_pages}\n{pages[1]} 1\n")


def test_every_group_above_the_process_counts(tmp_path: Path):
    group(tmp_path / "system.slice/job_7", 1000, 400, file_pages=100)
    group(tmp_path / "system.slice", "max", 900)
    assert list(free_in_groups("0::/system.slice/job_7/step_0\n", tmp_path)) == [701]
    group(tmp_path / "system.slice/job_7/step_0", 500, 600)
    group(tmp_path, 2000, 1999)  # the root, as a container mounts its own group
    assert list(free_in_groups("0::/system.slice/job_7/step_0\n", tmp_path)) == [0, 701, 2]


def test_version_1_has_a_hierarchy_for_memory(tmp_path: Path):
    group(tmp_path / "memory", 3000, 1000, 50, version=1)
    group(tmp_path / "memory/slurm/job", 2**63 - 4096, 1000, version=1)
    membership = "9:cpu,cpuacct:/slurm\n4:memory:/slurm/job\n1:name=systemd:/\n0::/slurm\n"
    assert list(free_in_groups(membership, tmp_path)) == [2**63 - 4096 - 999, 2051]
    assert list(free_in_groups("4:memory:/docker/of/the/host\n", tmp_path)) == [2051]


@pytest.mark.parametrize("membership", ["", "0::/\n", "0::/../..\n", "4:memory:/\n"])
def test_without_a_limit_the_machine_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str):
    (tmp_path / "membership").write_text(membership)
    monkeypatch.setattr(host_memory, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(host_memory, "MOUNT", tmp_path / "a/b/c")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Machine", (), {"available": 12345}))
    assert free_host_memory() == 12345
    for version, folder in ((1, "a/b/c/memory"), (2, "a/b/c")):
        group(tmp_path / folder, 100, 10, version=version)
    assert free_host_memory() == (91 if membership in ("0::/\n", "4:memory:/\n", "0::/../..\n") else 12345)
