"""kill -9 the process group of `dvc repro` at random moments of every stage: the artifacts must not change by a bit.

`make kill-test` runs it on the smoke profile: once undisturbed, once with KILLS kills a stage.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from repository import ROOT, clone, dvc, environment

STAGES = ("prompts", "teacher", "ode_pairs", "ode_init", "distill", "samples", "evaluate")
KILLS = 3  # a stage
SHORTEST = 0.5  # seconds: a stage that is over in a moment is still hit
# What a clock wrote differs from run to run, and with it all that is drawn from it.
TIMED = ("samples/timing.parquet", "evaluate/")


def artifacts(folder: Path) -> dict[str, str]:
    """SHA-256 of every published file that a clock has no part in."""
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    named = {str(path.relative_to(folder / "data")): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in named.items()
        if not name.startswith(TIMED)
    }


def kill_everywhere(folder: Path, seconds: dict[str, float], dice: random.Random) -> int:
    """Run `folder`'s pipeline to the end, killing it KILLS times in every stage; returns how many kills landed."""
    landed = 0
    for stage in STAGES:
        for _ in range(KILLS):
            landed += kill_once(folder, stage, dice.uniform(0, max(seconds[stage], SHORTEST)))
    dvc(folder, "repro")
    return landed


def kill_once(folder: Path, stage: str, delay: float) -> bool:
    """Start `dvc repro`, wait for `stage` and `delay` seconds, then kill -9 the group; False if it was over."""
    command = (sys.executable, "-m", "dvc", "repro", stage)
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdout=nowhere, stderr=nowhere, start_new_session=True
        )
    while process.poll() is None and not is_running(process, stage):
        time.sleep(0.02)
    time.sleep(delay)
    over = process.poll() is not None
    if not over:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"{stage}: {'over before' if over else 'killed after'} {delay:.2f} s", flush=True)
    return not over


def is_running(process: subprocess.Popen, stage: str) -> bool:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return any(f"stages/{stage}.py" in word for child in children for word in child.cmdline())
    except psutil.Error:
        return False


def timed_repro(folder: Path) -> dict[str, float]:
    """Run the whole pipeline stage by stage; seconds of each."""
    seconds = {}
    for stage in STAGES:
        start = time.perf_counter()
        dvc(folder, "repro", "--single-item", stage)
        seconds[stage] = time.perf_counter() - start
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        calm, killed = clone(Path(place) / "calm"), clone(Path(place) / "killed")
        seconds = timed_repro(calm)
        landed = kill_everywhere(killed, seconds, random.Random(0))
        expected, found = artifacts(calm), artifacts(killed)
    differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    print(f"{landed} kills; {len(expected)} files, {len(differing)} differ {differing[:10]}")
    sys.exit(bool(differing) or landed < len(STAGES) * KILLS - 1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main()
