"""Make a stage's shards on this machine by Snakemake, with one progress bar over all of them."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.progress import progress
from filmstill.work.shard import is_proven, last_line, remove_shard, shard_log

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3


def paths_of(work: Path, shards: list[str]) -> list[Path]:
    """Paths of shards in a work folder."""
    return [work / "shards" / f"{shard}.safetensors" for shard in shards]


def prepare(label: str, work: Path, paths: list[Path]) -> None:
    """Remove damaged and unfinished shards of an earlier run, so that they are made again; no process may make any.

    Snakemake's own notes on an earlier run go too: proofs are what tells which shards are finished.
    """
    work.mkdir(parents=True, exist_ok=True)
    for notes in ("metadata", "incomplete"):
        shutil.rmtree(work / ".snakemake" / notes, ignore_errors=True)
    _remove_unproven(label, [path for path in paths if path.exists()])


def snakemake(work: Path, profile: str) -> list[str]:
    """Command that runs Snakemake in `work` with workflow/profiles/<profile>; the caller appends config and targets."""
    workflow = Path.cwd() / "workflow"
    return [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(workflow / "Snakefile")),
        *("--workflow-profile", str(workflow / "profiles" / profile)),
        *("--directory", str(work)),
        "--nolock",  # the work folder's flock replaces Snakemake's lock, which would survive a kill
    ]


def private_cache(work: Path) -> dict[str, str]:
    """Environment in which Snakemake's cache of sources is in the work folder: the home folder may not be writable.

    Jobs on SLURM get the same, because their nodes see the work folder, but perhaps another home.
    """
    return {"XDG_CACHE_HOME": str(work.resolve() / "cache")}


def reported_items(work: Path) -> int:
    """Number of finished items that all shards have reported."""
    total = 0
    for path in (work / "shards").glob("*.progress"):
        text = path.read_bytes()[:18]
        total += int(text) if text.isdigit() else 0
    return total


def make_here(label: str, work: Path, shards: list[str], items: int, unit: str, device: str) -> None:
    """Make the missing shards on this machine: one at a time where `device` is cuda, else side by side.

    items, unit: size of the progress bar. Raises FilmstillError with the last line of a failed shard's log,
    Interrupted when stopped by a signal.
    """
    if all(path.exists() for path in paths_of(work, shards)):
        return
    config = ["--config", f"root={Path.cwd()}", f"shards={','.join(shards)}", f"device={device}"]
    with (work / "snakemake.log").open("a") as output:
        command = [*snakemake(work, "default"), *config]
        variables = {**os.environ, **private_cache(work)}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, close_fds=False, env=variables)
        with _forwarding_stop_to(process) as signals, progress(label, items, unit=unit) as bar:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                bar.update(reported_items(work) - bar.n)
            bar.update(reported_items(work) - bar.n)
    if signals:
        raise Interrupted(f"{label}: stopped; finished shards are kept, `dvc repro` makes the rest", signals[0])
    if process.returncode != 0:
        raise FilmstillError(_failure_message(label, work, shards))


class _forwarding_stop_to:  # noqa: N801 (used as a verb in a with statement)
    """While the block runs, SIGTERM and Ctrl-C stop Snakemake and its shards; the block gets the list of signals."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.signals: list[int] = []

    def __enter__(self) -> list[int]:
        self.previous = {n: signal.signal(n, self._stop) for n in (signal.SIGTERM, signal.SIGINT)}
        return self.signals

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        self.signals.append(number)
        with suppress(psutil.NoSuchProcess):  # Snakemake has exited already
            snakemake = psutil.Process(self.process.pid)
            for process in (*snakemake.children(recursive=True), snakemake):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)  # on SIGTERM, Snakemake would finish running shards first


def _remove_unproven(label: str, shards: list[Path]) -> None:
    """Delete shards that are not what their process has made, so that they are made again."""
    if not shards:
        return
    with progress(f"{label}, made before", len(shards), unit="shard") as bar:
        for shard in shards:
            if not is_proven(shard):
                log.warning("%s: is damaged or was not finished; it is made again", shard)
                remove_shard(shard)
            bar.update()


def _failure_message(label: str, work: Path, shards: list[str]) -> str:
    """One line with the failed shard, the last line of its log and the log's path."""
    for shard in shards:
        path = shard_log(work, shard)
        if not (work / "shards" / f"{shard}.safetensors").exists() and (last := last_line(path)):
            return f"{label}: shard {shard} failed: {last} (log: {path}); finished shards are kept"
    return f"{label}: Snakemake failed; its log is {work / 'snakemake.log'}"
