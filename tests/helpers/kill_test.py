"""Kill test: kill -9 the process group of `dvc repro` at random moments of every stage; no artifact may change.

`make kill-test` runs the smoke profile twice: undisturbed, and with KILLS kills per stage. Then it damages every file
in .work of the first run (damage_test.py). For the miniature Wan:
`PYTHONPATH=src:tests/helpers python tests/helpers/kill_test.py wan-mini`.
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

STAGES = ("provided", "prompts", "teacher", "ode_pairs", "ode_init", "distill", "samples", "evaluate")
KILLS = 3  # per stage
DAMAGE_TEST = Path(__file__).with_name("damage_test.py")
TRIES = 5  # starts per kill; a stage that ends before all of them is too short to hit
# Timings differ from run to run, and so does everything computed from them.
TIMED = ("samples/timing.parquet", "evaluate/metrics.json", "evaluate/report.html", "evaluate/plots/")


def artifacts(folder: Path) -> dict[str, str]:
    """SHA-256 of every published file that contains no timings."""
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    named = {str(path.relative_to(folder / "data")): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in named.items()
        if not name.startswith(TIMED)
    }


def kill_everywhere(folder: Path, seconds: dict[str, float], kills: int, dice: random.Random) -> int:
    """Run `folder`'s pipeline to its end with `kills` kills in every stage; returns the number of kills that hit.

    seconds: approximate duration of each stage. A stage that ends before its kill starts again from the beginning.
    """
    hits = 0
    for number, stage in enumerate(STAGES):
        remaining, before = kills, recorded(folder) or {}
        for _ in range(kills * TRIES):
            if kill_once(folder, stage, dice.uniform(0, seconds[stage])):
                remaining -= 1
                repair_rwlock(folder)
                repair_lock(folder, before, STAGES[:number])
            else:
                shutil.rmtree(folder / WORK / stage, ignore_errors=True)
            if not remaining:
                break
        hits += kills - remaining
        dvc(folder, "repro", "--force", "--single-item", stage)  # run from the work folder, not from DVC's cache
    dvc(folder, "repro")
    return hits


def kill_once(folder: Path, stage: str, delay: float) -> bool:
    """Start `stage` by `dvc repro`, wait `delay` seconds, then kill -9 its process group; False if it had ended."""
    command = (sys.executable, "-m", "dvc", "repro", "--force", "--single-item", stage)
    with open(os.devnull, "w") as null:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdout=null, stderr=null, start_new_session=True
        )
    while process.poll() is None and not is_running(process, stage):
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"{stage}: {'ended before' if ended else 'killed after'} {delay:.2f} s", flush=True)
    return not ended


def recorded(folder: Path) -> dict[str, object] | None:
    """The stages in dvc.lock; None if DVC could not read the file."""
    lock = folder / "dvc.lock"
    try:
        return yaml.safe_load(lock.read_bytes())["stages"] if lock.exists() else {}
    except (yaml.YAMLError, TypeError, KeyError):
        return None


def repair_lock(folder: Path, before: dict[str, object], stages: tuple[str, ...]) -> None:
    """Follow README's instructions if the kill tore dvc.lock, which DVC writes in place, not by rename."""
    found = recorded(folder)
    if found is not None and all(found.get(stage) == before[stage] for stage in stages):
        return
    print("dvc.lock: torn by the kill; removed, finished stages are recorded again", flush=True)
    (folder / "dvc.lock").unlink()
    for stage in stages:
        dvc(folder, "repro", "--single-item", stage)


def repair_rwlock(folder: Path) -> None:
    """Remove .dvc/tmp/rwlock if the kill tore it."""
    lock = folder / ".dvc/tmp/rwlock"
    try:
        json.loads(lock.read_text())
    except FileNotFoundError:
        pass
    except json.JSONDecodeError:
        print(".dvc/tmp/rwlock: torn by the kill; removed", flush=True)
        lock.unlink()


def is_running(process: subprocess.Popen, stage: str) -> bool:
    """Whether DVC has started the stage's script."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return any(f"stages/{stage}.py" in word for child in children for word in child.cmdline())
    except psutil.Error:
        return False


def timed_repro(folder: Path) -> dict[str, float]:
    """Run the pipeline stage by stage; returns the seconds of each."""
    seconds = {}
    for stage in STAGES:
        start = time.perf_counter()
        dvc(folder, "repro", "--single-item", stage)
        seconds[stage] = time.perf_counter() - start
    return seconds


def prepared(folder: Path, profile: str) -> Path:
    """Make a clone at `folder` with the files that the profile needs from its user."""
    clone(folder, profile)
    if profile == MINI:
        from mini_wan import write_mini

        write_mini(folder / "data/released" / MINI)
    return folder


def with_helpers(folder: Path) -> dict[str, str]:
    """`environment` with the modules beside this file."""
    variables = environment(folder)
    return {**variables, "PYTHONPATH": f"{variables['PYTHONPATH']}{os.pathsep}{DAMAGE_TEST.parent}"}


def main(profile: str = "smoke") -> None:
    with tempfile.TemporaryDirectory() as place:
        calm, killed = (prepared(Path(place) / name, profile) for name in ("calm", "killed"))
        seconds = timed_repro(calm)
        hits = kill_everywhere(killed, seconds, KILLS, random.Random(0))
        expected, found = artifacts(calm), artifacts(killed)
        differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        print(f"{hits} kills; {len(expected)} files, {len(differing)} differ {differing[:10]}", flush=True)
        damaged = subprocess.run((sys.executable, DAMAGE_TEST, "every"), cwd=calm, env=with_helpers(calm), check=False)
    sys.exit(bool(differing or damaged.returncode) or hits < len(STAGES) * KILLS)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main(*sys.argv[1:])
