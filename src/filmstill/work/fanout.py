"""Fan a stage's shards out through Snakemake on this machine, with one progress bar over all of them."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.progress import progress
from filmstill.work.folder import publish
from filmstill.work.shard import last_line, log_of

POLL_SECONDS = 0.3


def begin(label: str, work: Path, shards: list[str]) -> list[Path]:
    """The paths of all shards, in order, after damaged ones of an earlier run were removed."""
    work.mkdir(parents=True, exist_ok=True)
    paths = [work / "shards" / f"{shard}.safetensors" for shard in shards]
    _remove_damaged(label, [path for path in paths if path.exists()])
    return paths


def collect(shards: list[Path], folder: Path) -> list[Path]:
    """Link finished shards into `folder`; returns their new paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        publish(shard, folder / shard.name)
    return [folder / shard.name for shard in shards]


def snakemake(work: Path, profile: str) -> list[str]:
    """The command that runs Snakemake in `work` with workflow/profiles/<profile>; what it is to make comes after."""
    workflow = Path.cwd() / "workflow"
    return [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(workflow / "Snakefile")),
        *("--workflow-profile", str(workflow / "profiles" / profile)),
        *("--directory", str(work)),
        "--nolock",  # the work folder's flock guards it; Snakemake's own lock would survive a kill
    ]


def done(work: Path) -> int:
    """How many items the shards have reported, all together."""
    total = 0
    for path in (work / "shards").glob("*.progress"):
        text = path.read_text()
        total += int(text) if text.isdigit() else 0
    return total


def make_here(label: str, work: Path, shards: list[str], items: int, unit: str, device: str) -> None:
    """Make the missing shards on this machine. `device` cuda: one at a time.

    Raises FilmstillError with the end of a failed shard's log, Interrupted when stopped by a signal.
    """
    config = ["--config", f"root={Path.cwd()}", f"shards={','.join(shards)}", f"device={device}"]
    with (work / "snakemake.log").open("a") as log:
        command = [*snakemake(work, "default"), *config]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, close_fds=False)
        with _forwarding_stop_to(process) as asked, progress(label, items, unit=unit) as bar:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                bar.update(done(work) - bar.n)
            bar.update(done(work) - bar.n)
    if asked:
        raise Interrupted(f"{label}: stopped; finished shards are kept, `dvc repro` makes the rest", asked[0])
    if process.returncode != 0:
        raise FilmstillError(_why(label, work, shards))


class _forwarding_stop_to:  # noqa: N801 (reads as a verb where it is used)
    """While the block runs, SIGTERM and Ctrl-C stop Snakemake and its shards, and are noted."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.asked: list[int] = []

    def __enter__(self) -> list[int]:
        self.previous = {n: signal.signal(n, self._stop) for n in (signal.SIGTERM, signal.SIGINT)}
        return self.asked

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        self.asked.append(number)
        with suppress(psutil.NoSuchProcess):  # over already
            snakemake = psutil.Process(self.process.pid)
            for process in (*snakemake.children(recursive=True), snakemake):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)  # Snakemake's TERM would first finish the running shards


def _remove_damaged(label: str, shards: list[Path]) -> None:
    """Shards of an earlier run that do not prove themselves are made again."""
    if not shards:
        return
    from filmstill.runtime.tensor_files import load_tensors  # with torch: two seconds to import

    with progress(f"{label}, made before", len(shards), unit="shard") as bar:
        for shard in shards:
            try:
                load_tensors(shard)
            except FilmstillError as error:
                print(f"warning: {error}; it is made again", file=sys.stderr)
                shard.unlink()
            bar.update()


def _why(label: str, work: Path, shards: list[str]) -> str:
    """One line: the failed shard, the last line of its log and where the rest is."""
    for shard in shards:
        log = log_of(work, shard)
        if not (work / "shards" / f"{shard}.safetensors").exists() and (last := last_line(log)):
            return f"{label}: shard {shard} failed: {last} (log: {log}); finished shards are kept"
    return f"{label}: Snakemake failed; its log is {work / 'snakemake.log'}"
