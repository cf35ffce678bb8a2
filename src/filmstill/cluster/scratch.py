"""The folder that every node must see: refuse one that only this machine has, and put `.work` there.

Notable: told by the type of the file system, before any job runs; `cluster check` proves it on the nodes.
"""

import ipaddress
import os
import socket
import tempfile
from pathlib import Path

import psutil

from filmstill.cluster.config import CLUSTER, Cluster
from filmstill.cluster.slurm import tag
from filmstill.errors import FilmstillError, writing_failed
from filmstill.work.folder import WORK

MOUNTS, EXPORTS = Path("/proc/mounts"), Path("/etc/exports")
OF_ONE_MACHINE = frozenset(
    ["btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "xfs", "zfs"]
)


def refuse_unshared(cluster: Cluster, root: Path, nodes: dict[str, tuple[str, str]]) -> None:
    """Raise FilmstillError for a scratch that is missing, not writable or on this machine alone, as for the repository.

    nodes: of every node by name, its host and its address, as SLURM knows them.
    """
    if cluster.scratch is not None:
        _refuse_unwritable(Path(cluster.scratch))
    far = next((name for name, names in nodes.items() if not any(map(_is_here, names))), None)
    if far is None:
        return
    for folder, key in ((cluster.scratch, f"{CLUSTER}: scratch"), (root, "the repository")):
        if folder is not None and (kind := _own_kind(Path(folder).resolve())):
            raise FilmstillError(
                f"{key}: is '{folder}', on {kind} of this machine alone, allowed: a folder on a file system "
                f"that every node mounts at the same path, which {far} is to see"
            )


def use_scratch(cluster: Cluster, root: Path) -> None:
    """Make `.work` of the repository a link into the shared scratch, where cluster.yaml names one.

    Raises FilmstillError, with what to do, for a scratch that is missing or not writable, and where `.work` holds work
    or leads elsewhere.
    """
    if cluster.scratch is None:
        return
    _refuse_unwritable(Path(cluster.scratch))
    work, target = root / WORK, Path(cluster.scratch) / f"{root.resolve().name}-{tag(root)}"
    if work.is_symlink() and work.resolve() != target.resolve():
        raise FilmstillError(
            f"{WORK}: leads to {os.readlink(work)}, but {CLUSTER}: scratch is '{cluster.scratch}'; "
            f"move the work there and link it, or start anew: rm {WORK}"
        )
    if not work.is_symlink() and work.is_dir() and any(work.iterdir()):
        raise FilmstillError(
            f"{WORK}: holds work of this machine, but {CLUSTER}: scratch is '{cluster.scratch}'; "
            f"move it: mv -T {WORK} {target} && ln -s {target} {WORK}"
        )
    try:
        target.mkdir(exist_ok=True)
        if not work.is_symlink():
            if work.is_dir():
                work.rmdir()
            work.symlink_to(target)
    except OSError as error:
        raise writing_failed(error.filename or target, error) from error


def _refuse_unwritable(scratch: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=scratch):
            pass
    except OSError as error:
        raise FilmstillError(
            f"{CLUSTER}: scratch: is '{scratch}', allowed: a folder that exists and can be written ({error.strerror})"
        ) from None


def _own_kind(folder: Path) -> str | None:
    """The kind of file system that `folder` is on if only this machine has it; None if others may see it."""
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    under = [(len(point), kind) for point, kind in mounts if folder.is_relative_to(point.replace("\\040", " "))]
    kind = sorted(under, key=lambda pair: pair[0])[-1][1]  # of several at one point the last is the one that shows
    return kind if kind in OF_ONE_MACHINE and not _is_exported(folder) else None


def _is_exported(folder: Path) -> bool:
    """Whether this machine serves the folder by NFS to the others."""
    lines = EXPORTS.read_text().splitlines() if EXPORTS.is_file() else []
    return any(folder.is_relative_to(line.split()[0]) for line in lines if line.startswith("/"))


def _is_here(name: str) -> bool:
    """Whether a host's name or address is this machine's."""
    own = {socket.gethostname(), socket.getfqdn()}
    if name in own or name.partition(".")[0] in {each.partition(".")[0] for each in own}:
        return True
    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo(name, None)}
    except OSError:
        return False
    addresses = {address.address for interface in psutil.net_if_addrs().values() for address in interface}
    return any(address in addresses or ipaddress.ip_address(address).is_loopback for address in found)
