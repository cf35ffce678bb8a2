"""A temporary SLURM cluster on this machine: munge, slurmctld, a few slurmd, and accounting if requested.

`python tests/slurm/lab.py up`, `status`, `down`; `make slurm-up`, `make slurm-down`. Root only, because slurmd starts
jobs as their users. Jobs run on this machine. The processes of the cluster, or of one node, are found by searching
(lab_processes.py). A node that loses power is frozen before it is killed: the kernel closes the sockets of a killed
process, and its peers notice; a dead node's sockets stay silent.
"""

import argparse
import getpass
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock

import lab_files
import lab_host
import lab_processes
from filmstill.cluster.slurm import SEPARATOR
from filmstill.errors import FilmstillError
from filmstill.runtime.exit import exit_code
from lab_processes import destroy, freeze

T = TypeVar("T")
UP = {"idle", "mix", "alloc", "comp"}  # states of a node without a fault, in sinfo's abbreviations
FIELDS = ("JobID", "Name", "Partition", "StateCompact", "Reason", "NodeList", "RestartCnt")


@dataclass(frozen=True)
class Job:
    """A line of squeue."""

    id: int
    name: str
    partition: str
    state: str  # in squeue's abbreviations: PD, R, CG, CD, F, NF, TO, CA
    reason: str
    nodes: str
    restarts: int


@dataclass(frozen=True)
class Lab:
    """A cluster whose whole state is in `folder`: `up()`, use it, `down()`."""

    folder: Path
    nodes: int = 2
    cpus: int = 8  # per node; fake, as memory and GPUs are
    memory_mb: int = 65536
    gpus: int = 8
    accounting: bool = False
    system: bool = False  # link /etc/slurm/slurm.conf to it: Snakemake's jobstep unsets SLURM_CONF before its srun

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    @property
    def names(self) -> list[str]:
        return [f"node{number + 1}" for number in range(self.nodes)]

    def environment(self) -> dict[str, str]:
        """Variables that a process needs in addition to its environment to use this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    # Up and down

    def up(self) -> None:
        """Start the cluster and wait until every node is idle; does nothing where it is up. Raises FilmstillError."""
        if self.is_up():
            if self.accounting != self.conf.with_name("slurmdbd.conf").exists():
                raise FilmstillError(f"{self.folder}: a cluster with other options is up; run `make slurm-down` first")
            return
        lab_host.refuse_missing(self.accounting)
        self.down()
        if self.folder.exists() and os.listdir(self.folder) and not self.conf.exists():
            raise FilmstillError(f"{self.folder}: is neither empty nor a cluster's; give another folder")
        lab_files.refuse_long(self.folder, self.names)
        shutil.rmtree(self.folder, ignore_errors=True)  # start without old state
        # Locked until the daemons listen: before that another cluster would take the same ports for free ones.
        with FileLock(Path(tempfile.gettempdir()) / "filmstill-slurm.lock"):
            port = lab_host.free_ports(self.nodes + 3)
            try:
                self._write(port)
                if self.system:
                    lab_host.point(self.conf)
                self._start(port)
                self.wait_until(self.is_up, 30)
            except BaseException:
                self.down()
                raise

    def down(self) -> None:
        """Kill every daemon and every job, and restore /etc/slurm/slurm.conf. The logs are kept until the next `up`."""
        destroy(self.processes)
        lab_host.unpoint(self.conf)

    def is_up(self) -> bool:
        """Whether the controller runs and every node is without a fault."""
        if not self.controller():
            return False  # without a slurm.conf sinfo searches the DNS for one for a minute
        words = self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False).split()
        return words[::2] == self.names and set(words[1::2]) <= UP

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """Processes of this cluster, or of one node: daemons, step daemons, and everything that jobs started."""
        found = lab_processes.daemons(self._log_of(node))
        return lab_processes.with_children(found + lab_processes.of_jobs(self.conf, node))

    def controller(self) -> list[psutil.Process]:
        """The slurmctld process; [] if it does not run."""
        return lab_processes.daemons(self.folder / "log", ("slurmctld",))

    # Faults

    def stop_node(self, name: str) -> None:
        """Simulate a power loss: freeze the node, wait until the controller has noticed, then kill its processes."""
        self.stop_slurmd(name)
        freeze(lambda: self.processes(name))
        self.wait_until(lambda: self.node_state(name).startswith("down"), 60)
        destroy(lambda: self.processes(name))

    def stop_slurmd(self, name: str) -> None:
        """Kill only the node's daemon; its jobs go on."""
        destroy(lambda: lab_processes.daemons(self._log_of(name), ("slurmd",)))

    def start_node(self, name: str) -> None:
        """Start the node's daemon and wait until the controller sees it again."""
        self._run("slurmd", "-N", name)
        self.wait_until(lambda: self.node_state(name) in UP, 60)

    def stop_controller(self) -> None:
        """Stop slurmctld by SIGTERM; jobs go on, and every command fails."""
        for process in self.controller():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        self.wait_until(lambda: not self.controller(), 30)

    def start_controller(self) -> None:
        """Start slurmctld with its saved state, and wait until every node is up."""
        self._run("slurmctld")
        self.wait_until(self.is_up, 60)

    # Commands

    def submit(self, script: str, **flags: object) -> int:
        """Submit `script` (bash) by sbatch, with --flag=value per flag, --flag for True; returns the job's id."""
        given = [f"--{name.replace('_', '-')}" + ("" if flag is True else f"={flag}") for name, flag in flags.items()]
        words = ("sbatch", "--parsable", "--output=/dev/null", *given)
        return int(self.ask(*words, text=f"#!/bin/bash\n{script}\n"))

    def squeue(self, *flags: str) -> list[Job]:
        """The jobs that SLURM remembers, including those that ended in the last hour. flags: select fewer."""
        fields = ",".join(f"{field}:{SEPARATOR}" for field in FIELDS)
        lines = self.ask("squeue", "--noheader", "--states=all", f"--Format={fields}", *flags).splitlines()
        return [_job(*line.split(SEPARATOR)[: len(FIELDS)]) for line in lines]

    def newest(self) -> int:
        """The id of the latest job; 0 if none was submitted."""
        return max((job.id for job in self.squeue()), default=0)

    def job(self, number: int) -> Job:
        [job] = self.squeue(f"--jobs={number}")
        return job

    def node_state(self, name: str) -> str:
        """A node's state in sinfo's abbreviations: idle, mix, alloc, comp, down; with a * while it does not answer."""
        return self.ask("sinfo", "-h", "-n", name, "-p", "main", "-o", "%t").strip()

    def ask(self, *words: str, check: bool = True, text: str | None = None) -> str:
        """The output of a SLURM command. check: raise RuntimeError with its error where it fails. text: its stdin."""
        done = self._called(words, text)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def wait_until(self, condition: Callable[[], T], seconds: float) -> T:
        """Poll `condition` until its value is true, and return the value. Raises TimeoutError with SLURM's state."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                shown = self.ask("squeue", "--states=all", check=False) + self.ask("sinfo", "-N", "-l", check=False)
                raise TimeoutError(f"condition is false after {seconds} s; logs in {self.folder}/log\n{shown}")
            time.sleep(0.1)
        return value

    # Internals

    def _log_of(self, node: str | None) -> Path:
        """The log of a node's daemon; None: the folder of all logs."""
        return self.folder / "log" / (f"slurmd.{node}.log" if node else "")

    def _write(self, port: int) -> None:
        for name in ("etc", "log", "pid", "state", "munge", "dev", *(f"spool/{name}" for name in self.names)):
            (self.folder / name).mkdir(parents=True)
        lab_host.secret(self.folder / "munge" / "key", os.urandom(1024))
        for number in range(self.gpus):
            os.mknod(self.folder / "dev" / f"gpu{number}", stat.S_IFCHR | 0o600, os.stat("/dev/null").st_rdev)
        each = f"CPUs={self.cpus} RealMemory={self.memory_mb} Gres=gpu:h100:{self.gpus}"
        self.conf.write_text(lab_files.slurm_conf(self.folder, self.names, each, port, self.accounting))
        self.conf.with_name("gres.conf").write_text(lab_files.gres_conf(self.folder, self.names, self.gpus))
        self.conf.with_name("cgroup.conf").write_text("CgroupAutomount=no\n")
        lab_host.resolve(self.names)

    def _start(self, port: int) -> None:
        munge = self.folder / "munge"
        files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "seed")]
        files += [f"--log-file={self.folder}/log/munged.log", f"--socket={lab_files.munge_socket(self.folder)}"]
        self._run("munged", "--force", *files)
        if self.accounting:
            self._start_accounting(port + self.nodes + 1)
        self._run("slurmctld", "-c")
        for name in self.names:
            self._run("slurmd", "-N", name)

    def _start_accounting(self, port: int) -> None:
        data = self.folder / "database"
        here = ["--no-defaults", "--user=root", f"--socket={data}/socket"]
        fresh = ["--skip-test-db", "--auth-root-authentication-method=normal"]
        self._run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", *fresh)
        served = [f"--datadir={data}", f"--log-error={self.folder}/log/mariadb.log", "--bind-address=127.0.0.1"]
        served += [f"--port={port + 1}", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"]
        served += ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"]
        self._run("setsid", "--fork", "mariadbd", *here, *served)
        user = f"create user slurm@127.0.0.1 identified by '{lab_files.DATABASE_PASSWORD}'"
        grant = "grant all on *.* to slurm@127.0.0.1"
        self.wait_until(lambda: self._works("mariadb", *here, "--execute", f"{user}; {grant}"), 30)
        settings = lab_files.slurmdbd_conf(self.folder, port, database_port=port + 1)
        lab_host.secret(self.conf.with_name("slurmdbd.conf"), settings.encode())
        self._run("slurmdbd")
        self.wait_until(lambda: self._works("sacctmgr", "--immediate", "add", "cluster", "lab"), 30)

    def _run(self, *words: str) -> None:
        """Start a daemon, which detaches itself. What it prints before it opens its own log goes to start.log."""
        variables = {"PATH": os.environ["PATH"], **self.environment()}
        with (self.folder / "log" / "start.log").open("a") as log:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            subprocess.run(words, env=variables, cwd=self.folder, check=True, timeout=60, **streams)

    def _works(self, *words: str) -> bool:
        return self._called(words).returncode == 0

    def _called(self, words: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **self.environment()}
        return subprocess.run(words, env=variables, input=text, capture_output=True, text=True, timeout=60)


def _job(number: str, name: str, partition: str, state: str, reason: str, nodes: str, restarts: str) -> Job:
    return Job(int(number), name, partition, state, reason, nodes, int(restarts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("install", "up", "status", "down"))
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB, so that sacct works")
    arguments = parser.parse_args()
    folder = Path(tempfile.gettempdir()).resolve() / f"filmstill-slurm-{getpass.getuser()}"
    lab = Lab(folder, accounting=arguments.accounting, system=True)
    if arguments.action == "install":
        lab_host.install()
    elif arguments.action == "down":
        lab.down()
    else:
        if arguments.action == "up":
            lab.up()
        if not lab.is_up():
            raise FilmstillError(f"{folder}: no cluster is up there; start one with `make slurm-up`")
        print(f"export SLURM_CONF={lab.conf}", lab.ask("sinfo"), sep="\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
