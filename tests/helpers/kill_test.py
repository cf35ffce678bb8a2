"""kill -9 the process group of `dvc repro` at random moments of every stage: the artifacts must not change by a bit.

`make kill-test` runs it on the smoke profile: once undisturbed, once with KILLS kills a stage;
`PYTHONPATH=src:tests/helpers python tests/helpers/kill_test.py wan-mini` on the miniature Wan.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from filmstill.formats.release import MINI
from filmstill.work.folder import WORK
from repository import ROOT, clone, dvc, environment

STAGES = ("prompts", "teacher", "ode_pairs", "ode_init", "distill", "samples", "evaluate")
KILLS = 3  # a stage
TRIES = 5  # starts a kill before a stage counts as too short to hit
# What a clock wrote differs from run to run, and with it all that is drawn from it.
TIMED = ("samples/timing.parquet", "evaluate/metrics.json", "evaluate/report.html", "evaluate/plots/")


def artifacts(folder: Path) -> dict[str, str]:
    """SHA-256 of every published file that a clock has no part in."""
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    named = {str(path.relative_to(folder / "data")): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in named.items()
        if not name.startswith(TIMED)
    }


def kill_everywhere(folder: Path, seconds: dict[str, float], kills: int, dice: random.Random) -> int:
    """Run `folder`'s pipeline to the end, with `kills` kills in every stage; returns how many landed.

    `seconds` is about what each stage takes. A stage that ends before its kill starts again from nothing.
    """
    landed = 0
    for number, stage in enumerate(STAGES):
        left, before = kills, recorded(folder) or {}
        for _ in range(kills * TRIES):
            if kill_once(folder, stage, dice.uniform(0, seconds[stage])):
                left -= 1
                mend_rwlock(folder)
                mend_lock(folder, before, STAGES[:number])
            else:
                shutil.rmtree(folder / WORK / stage, ignore_errors=True)
            if not left:
                break
        landed += kills - left
        dvc(folder, "repro", "--force", "--single-item", stage)  # by its work, never from DVC's cache
    dvc(folder, "repro")
    return landed


def kill_once(folder: Path, stage: str, delay: float) -> bool:
    """Start `stage` by `dvc repro`, wait `delay` seconds, then kill -9 the group; False if it was over."""
    command = (sys.executable, "-m", "dvc", "repro", "--force", "--single-item", stage)
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdout=nowhere, stderr=nowhere, start_new_session=True
        )
    while process.poll() is None and not is_running(process, stage):
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    over = process.poll() is not None
    if not over:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"{stage}: {'over before' if over else 'killed after'} {delay:.2f} s", flush=True)
    return not over


def recorded(folder: Path) -> dict[str, object] | None:
    """The stages in dvc.lock; None where DVC would refuse the file."""
    lock = folder / "dvc.lock"
    try:
        return yaml.safe_load(lock.read_bytes())["stages"] if lock.exists() else {}
    except (yaml.YAMLError, TypeError, KeyError):
        return None


def mend_lock(folder: Path, before: dict[str, object], stages: tuple[str, ...]) -> None:
    """What README says to do when the kill tore dvc.lock, which DVC writes in place, not by rename."""
    left = recorded(folder)
    if left is not None and all(left.get(stage) == before[stage] for stage in stages):
        return
    print("dvc.lock: torn by the kill; removed, and every stage before found made", flush=True)
    (folder / "dvc.lock").unlink()
    for stage in stages:
        dvc(folder, "repro", "--single-item", stage)


def mend_rwlock(folder: Path) -> None:
    """The same for .dvc/tmp/rwlock."""
    lock = folder / ".dvc/tmp/rwlock"
    try:
        json.loads(lock.read_text())
    except FileNotFoundError:
        pass
    except json.JSONDecodeError:
        print(".dvc/tmp/rwlock: torn by the kill; removed", flush=True)
        lock.unlink()


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


def prepared(folder: Path, profile: str) -> Path:
    """A clone at `folder` with what the profile needs of its user."""
    clone(folder, profile)
    if profile == MINI:
        from mini_wan import write_mini

        write_mini(folder / "data/released" / MINI)
    return folder


def main(profile: str = "smoke") -> None:
    with tempfile.TemporaryDirectory() as place:
        calm, killed = (prepared(Path(place) / name, profile) for name in ("calm", "killed"))
        seconds = timed_repro(calm)
        landed = kill_everywhere(killed, seconds, KILLS, random.Random(0))
        expected, found = artifacts(calm), artifacts(killed)
    differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    print(f"{landed} kills; {len(expected)} files, {len(differing)} differ {differing[:10]}")
    sys.exit(bool(differing) or landed < len(STAGES) * KILLS)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main(*sys.argv[1:])
