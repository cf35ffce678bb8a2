"""What a throw-away SLURM cluster needs of the machine: Debian's packages, ports, names, and the system's slurm.conf.

Notable: nothing here knows a cluster; /etc/slurm/slurm.conf is only ever replaced where it is a link, and put back.
"""

import os
import random
import re
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from filmstill.cluster.meeting import PORTS
from filmstill.errors import FilmstillError

BASE = {"slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge"}  # Debian's packages by program
ACCOUNTING = {"slurmdbd": "slurmdbd slurm-wlm-mysql-plugin", "mariadbd": "mariadb-server-core mariadb-client-core"}
INSTALL = "apt-get install --yes --no-install-recommends"
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")
HOSTS = Path("/etc/hosts")


def refuse_missing(accounting: bool) -> None:
    """Raises FilmstillError for one who is not root and, with what to type, for packages that are not there."""
    packages = missing(BASE | ACCOUNTING if accounting else BASE)
    if packages:
        raise FilmstillError(f"slurm: not installed; as root: apt-get update && {INSTALL} {packages}")
    if os.geteuid() != 0:
        raise FilmstillError("slurm: the cluster for tests is started by root only; use sudo or a container")


def install() -> None:
    """Install what is missing, accounting too, by apt-get. Raises FilmstillError where that can't be done."""
    packages = missing(BASE | ACCOUNTING)
    if not packages:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        refuse_missing(accounting=True)
    around = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["apt-get", "update"], [*INSTALL.split(), *packages.split()]):
        if subprocess.run(words, env=around, stdout=subprocess.DEVNULL).returncode:
            raise FilmstillError(f"slurm: `{' '.join(words)}` failed, see above; install {packages} and run again")


def missing(packages: dict[str, str]) -> str:
    """The packages whose programs are not on the path."""
    return " ".join(package for program, package in packages.items() if not shutil.which(program))


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on, below those that jobs meet on.

    Those of several clusters are so far apart that their jobs' ids are, too (lab_files.py).
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
    """Make the names resolve to this machine. They stay in /etc/hosts: another cluster may use them by now."""
    known = HOSTS.read_text()
    with HOSTS.open("a") as file:
        file.writelines(f"127.0.0.1 {name}\n" for name in names if not re.search(rf"\s{name}(\s|$)", known))


def point(conf: Path) -> None:
    """Let /etc/slurm/slurm.conf be a link to `conf`. Raises FilmstillError where it is a file: a real cluster's."""
    if SYSTEM_CONF.exists() and not SYSTEM_CONF.is_symlink():
        raise FilmstillError(f"{SYSTEM_CONF}: belongs to a real cluster; use a machine that is in none")
    if SYSTEM_CONF.is_symlink():
        before(conf).symlink_to(os.readlink(SYSTEM_CONF))
        SYSTEM_CONF.unlink()
    SYSTEM_CONF.parent.mkdir(exist_ok=True)
    SYSTEM_CONF.symlink_to(conf)


def unpoint(conf: Path) -> None:
    """Put back what `point` replaced; nothing to do where /etc/slurm/slurm.conf is no longer a link to `conf`."""
    if SYSTEM_CONF.is_symlink() and os.readlink(SYSTEM_CONF) == str(conf):
        SYSTEM_CONF.unlink()
        if before(conf).is_symlink():
            SYSTEM_CONF.symlink_to(os.readlink(before(conf)))


def before(conf: Path) -> Path:
    """Where the link that was there before waits."""
    return conf.with_name("slurm.conf.before")


def secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
