"""Damage test: every file in .work is emptied, garbled, removed, replaced, copied or made a folder, one at a time.

Afterwards each stage must publish the same bytes again, or say in one line what to remove. `make kill-test` runs it on
every file of a finished smoke profile, tests/stages/test_damage.py on one file of every kind.

Usage, in a repository where the smoke profile has finished: damage_test.py [every|kinds] [STAGE ...]. The stages run in
this process, which saves their imports.
"""

import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filmstill.cluster import run as running
from filmstill.errors import FilmstillError
from filmstill.runtime.logs import log_to_stderr
from filmstill.work import stage as stages
from filmstill.work.folder import WORK
from filmstill.work.graph import ROOT
from kill_test import STAGES, artifacts


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    """Flip a bit in the middle; the size stays."""
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    """Replace it by another file of its kind, or by any file beside it."""
    others = [other for other in sorted(path.parent.rglob("*")) if other.is_file() and other != path]
    alike = [other for other in others if other.suffix == path.suffix] or others
    path.write_bytes(alike[0].read_bytes() if alike else b"{}")


def copied(path: Path) -> None:
    """Copy it beside itself, under the next name; of a checkpoint, copy the whole folder."""
    if path.parent.name.startswith("step-"):
        shutil.copytree(path.parent, path.parent.with_name("step-9999999"))
    else:
        shutil.copyfile(path, path.with_name(f"{path.stem}9{path.suffix}"))


def nested(path: Path) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


DAMAGES = (emptied, garbled, removed, replaced, copied, nested)


def kind(path: Path) -> str:
    """A file's path without its key, numbers and arm: files of one kind are made in the same way."""
    arm = r"(?<=[-/])(real|teacher|undistilled|init|student_long|student_picture|student_changed|student)(?=[-./])"
    return re.sub(arm, "ARM", re.sub(r"[0-9a-f]{16}|\d+", "N", str(path))) + path.parts[1]


def run_stage(name: str) -> str | None:
    """Run a stage in this process; returns the line by which it refuses, None where it publishes."""
    try:
        main = runpy.run_path(f"stages/{name}.py", run_name="__stage__")
        running.run = lambda *given: stages._run(*given, ROOT)  # type: ignore[assignment]
        running.run_stage(name, main["main"], as_job=name in ("teacher", "ode_init", "distill"))
    except FilmstillError as error:
        return str(error)
    return None


def check(name: str, pristine: Path, damage: Callable[[Path], None], path: Path, done: bool) -> str:
    """Damage a file of a stage that has finished (`done`) or was stopped before it published; returns what is wrong."""
    work = WORK / name
    shutil.rmtree(work)
    shutil.copytree(pristine / name, work)
    if not done:
        (next(work.iterdir()) / stages.DONE).unlink()
        shutil.rmtree(next(work.iterdir()) / "out")
    if not path.exists():
        return ""
    damage(path)
    for published in (path for path in (Path("data") / name).rglob("*") if path.is_file()):
        if str(published) not in TRACKED:
            published.unlink()
    line = run_stage(name)
    if line is not None:
        return "" if "\n" not in line and "remove" in line else f"refused: {line}"
    found = artifacts(Path())
    return next((f"{file} differs" for file in EXPECTED if found.get(file) != EXPECTED[file]), "") or next(
        (f"{file} is too much" for file in found if file not in EXPECTED), ""
    )


def cases(names: list[str], every: bool) -> Iterator[tuple[str, Path]]:
    seen = set()
    for name in names:
        for path in sorted(path for path in (WORK / name).rglob("*") if path.is_file() and path.name != "lock"):
            if every or kind(path) not in seen:
                seen.add(kind(path))
                yield name, path


def main(which: str = "every", *names: str) -> None:
    log_to_stderr()
    pristine, wrong, count = Path(".pristine"), 0, 0
    shutil.rmtree(pristine, ignore_errors=True)
    shutil.copytree(WORK, pristine)
    for name, path in list(cases(list(names) or list(STAGES), which == "every")):
        for damage in DAMAGES:
            for done in (True, False):
                start, count = time.perf_counter(), count + 1
                found = check(name, pristine, damage, path, done)
                wrong += bool(found)
                state = "finished" if done else "stopped"
                seconds = time.perf_counter() - start
                print(f"{damage.__name__} {path}, {state}: {found or 'ok'} ({seconds:.1f} s)", flush=True)
    shutil.rmtree(WORK)
    pristine.rename(WORK)
    print(f"{count} damages, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    EXPECTED = artifacts(Path())
    TRACKED = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    main(*sys.argv[1:])
