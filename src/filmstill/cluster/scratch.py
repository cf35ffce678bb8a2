"""Where `.work` is: shared by all checkouts of a repository, on the scratch that all nodes share.

A scratch that only this machine has is refused. The type of the file system decides, before any job runs; `cluster
check` verifies it on the nodes.
"""

import ipaddress
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from filmstill.artifacts import PROMPT_CACHE
from filmstill.cluster.config import Cluster, cluster_name
from filmstill.cluster.slurm import digest
from filmstill.errors import FilmstillError, writing_failed
from filmstill.work.checkouts import contains_files, make_link, owner_of, share
from filmstill.work.folder import WORK

MOUNTS, EXPORTS = Path("/proc/mounts"), Path("/etc/exports")
LOCAL_FILE_SYSTEMS = frozenset(
    ["btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "xfs", "zfs"]
)


def refuse_unshared(cluster: Cluster, root: Path, nodes: dict[str, tuple[str, str]]) -> None:
    """Raise FilmstillError for a scratch that is missing or not writable, or where other hosts cannot see it or `root`.

    root: the repository. nodes: (host, address) of every node by name, as SLURM knows them.
    """
    if cluster.scratch is not None:
        _refuse_unwritable(Path(cluster.scratch))
    remote = next((name for name, names in nodes.items() if not any(map(_is_here, names))), None)
    if remote is None:
        return
    for folder, key in ((cluster.scratch, f"{cluster_name()}: scratch"), (root, "the repository")):
        if folder is not None and (kind := _local_kind(Path(folder).resolve())):
            raise FilmstillError(
                f"{key}: is '{folder}', on {kind} of this machine alone, allowed: a folder on a file system "
                f"that every node mounts at the same path, including {remote}"
            )


def use_work(cluster: Cluster, root: Path) -> None:
    """Let every checkout of the repository use the main checkout's `.work`, which may be on the scratch.

    A key names the same work wherever it is made: an experiment resumes and reuses what another checkout has begun. A
    checkout that already has work of its own keeps it apart. The cache of encoded prompts is shared too. Experiments
    may start together: the main checkout's `.work` is on the scratch before anything links to it.

    Raises FilmstillError, with what to do, for a scratch that is missing or not writable, and where `.work` is a folder
    with work in it or a link to another folder.
    """
    if cluster.scratch is not None:
        _put_on_scratch(Path(cluster.scratch), owner_of(WORK, root))
    share(WORK, root)
    with suppress(FilmstillError):  # without it, prompts are encoded again
        share(PROMPT_CACHE.parent, root)


def find_work(root: Path) -> None:
    """`use_work` for a command that only reads `.work`: it works whatever cluster.yaml reads."""
    use_work(Cluster(), root)


def _put_on_scratch(scratch: Path, root: Path) -> None:
    """Make the `.work` of a checkout a link into the scratch."""
    _refuse_unwritable(scratch)
    work, target = root / WORK, scratch / f"{root.resolve().name}-{digest(root)[:4]}"
    if work.is_symlink() and work.resolve() != target.resolve():
        raise FilmstillError(
            f"{work}: is a link to {os.readlink(work)}, but {cluster_name()}: scratch is '{scratch}'; "
            f"move the work there and link it, or start without it: rm {work}"
        )
    if contains_files(work) and not work.is_symlink():  # else another process has just made the link
        raise FilmstillError(
            f"{work}: contains work of this machine, but {cluster_name()}: scratch is '{scratch}'; "
            f"move it: mv -T {work} {target} && ln -s {target} {work}"
        )
    try:
        target.mkdir(exist_ok=True)
        make_link(work, target)
    except OSError as error:
        raise writing_failed(error.filename or target, error) from error


def _refuse_unwritable(scratch: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=scratch):
            pass
    except OSError as error:
        raise FilmstillError(
            f"{cluster_name()}: scratch: is '{scratch}', allowed: a folder that exists and can be written "
            f"({error.strerror})"
        ) from None


def _local_kind(folder: Path) -> str | None:
    """The type of the file system of `folder` if only this machine sees it; None if others may see it."""
    mounts = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    under = [(len(point), kind) for point, kind in mounts if folder.is_relative_to(point.replace("\\040", " "))]
    kind = sorted(under, key=lambda pair: pair[0])[-1][1]  # of several mounts at one point, the last is visible
    return kind if kind in LOCAL_FILE_SYSTEMS and not _is_exported(folder) else None


def _is_exported(folder: Path) -> bool:
    """Whether this machine exports the folder by NFS."""
    lines = EXPORTS.read_text().splitlines() if EXPORTS.is_file() else []
    return any(folder.is_relative_to(line.split()[0]) for line in lines if line.startswith("/"))


def _is_here(name: str) -> bool:
    """Whether a host name or address is this machine's."""
    own = {socket.gethostname(), socket.getfqdn()}
    if name in own or name.partition(".")[0] in {each.partition(".")[0] for each in own}:
        return True
    try:
        found = {str(address[4][0]) for address in socket.getaddrinfo(name, None)}
    except OSError:
        return False
    addresses = {address.address for interface in psutil.net_if_addrs().values() for address in interface}
    return any(address in addresses or ipaddress.ip_address(address).is_loopback for address in found)
