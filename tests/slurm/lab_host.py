"""What a temporary SLURM cluster needs from the machine: Debian packages, ports, host names, the system's slurm.conf.

/etc/slurm/slurm.conf is replaced only where it is a link or missing, and is restored afterwards.
"""

import os
import random
import re
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from filmstill.cluster.rendezvous import PORTS
from filmstill.errors import FilmstillError

BASE = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge"}  # Debian's packages by program
ACCOUNTING = {"slurmdbd": "slurmdbd slurm-wlm-mysql-plugin", "mariadbd": "mariadb-server-core mariadb-client-core"}
INSTALL = "apt-get install --yes --no-install-recommends"
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")
HOSTS = Path("/etc/hosts")


def refuse_missing(accounting: bool) -> None:
    """Raise FilmstillError where packages are missing, with the command that installs them, or the user is not root."""
    packages = missing(BASE | ACCOUNTING if accounting else BASE)
    if packages:
        raise FilmstillError(f"slurm: not installed; as root: apt-get update && {INSTALL} {packages}")
    if os.geteuid() != 0:
        raise FilmstillError("slurm: the cluster for tests is started by root only; use sudo or a container")


def install() -> None:
    """Install the missing packages, including accounting, by apt-get. Raises FilmstillError where that fails."""
    packages = missing(BASE | ACCOUNTING)
    if not packages:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        refuse_missing(accounting=True)
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["apt-get", "update"], [*INSTALL.split(), *packages.split()]):
        if subprocess.run(words, env=variables, stdout=subprocess.DEVNULL).returncode:
            raise FilmstillError(f"slurm: `{' '.join(words)}` failed, see above; install {packages} and run again")


def missing(packages: dict[str, str]) -> str:
    """The packages whose programs are not on PATH, separated by spaces. packages: package by program."""
    return " ".join(package for program, package in packages.items() if not shutil.which(program))


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports below the ports of jobs' rendezvous.

    Ports of several clusters are at least 40 apart, so that their job ids are far apart too (lab_files.py).
    """
    bases = range(20000, PORTS.start, 40)
    for base in random.sample(bases, len(bases)):
        with suppress(OSError):
            for port in range(base, base + count):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port))
            return base
    raise FilmstillError(f"slurm: no free ports between 20000 and {PORTS.start}; stop something that listens there")


def resolve(names: list[str]) -> None:
    """Make the names resolve to this machine. They are kept in /etc/hosts, because another cluster may use them."""
    known = HOSTS.read_text()
    with HOSTS.open("a") as file:
        file.writelines(f"127.0.0.1 {name}\n" for name in names if not re.search(rf"\s{name}(\s|$)", known))


def point(conf: Path) -> None:
    """Make /etc/slurm/slurm.conf a link to `conf`. Raises FilmstillError where it is a real cluster's file."""
    if SYSTEM_CONF.exists() and not SYSTEM_CONF.is_symlink():
        raise FilmstillError(f"{SYSTEM_CONF}: belongs to a real cluster; use a machine that is in none")
    if SYSTEM_CONF.is_symlink():
        before(conf).symlink_to(os.readlink(SYSTEM_CONF))
        SYSTEM_CONF.unlink()
    SYSTEM_CONF.parent.mkdir(exist_ok=True)
    SYSTEM_CONF.symlink_to(conf)


def unpoint(conf: Path) -> None:
    """Restore what `point` replaced; does nothing where /etc/slurm/slurm.conf is no longer a link to `conf`."""
    if SYSTEM_CONF.is_symlink() and os.readlink(SYSTEM_CONF) == str(conf):
        SYSTEM_CONF.unlink()
        if before(conf).is_symlink():
            SYSTEM_CONF.symlink_to(os.readlink(before(conf)))


def before(conf: Path) -> Path:
    """Path under which the earlier link is kept."""
    return conf.with_name("slurm.conf.before")


def secret(path: Path, content: bytes) -> None:
    """Create a file that only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
