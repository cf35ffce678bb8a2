"""Run stages in a copy of the finished smoke pipeline: change parameters, hold a training, read the refusal."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from repository import environment, run

TIMEOUT_SECONDS = 60  # seconds to wait for what must happen

# Appended to telemetry.py of a copy, an edit that makes no stage run again.
HOLD = """

def _hold(self, index, own=Telemetry.add):
    import pathlib
    import time

    own(self, index)
    if index == {step}:
        pathlib.Path("held").touch()
        for _ in range(6000):  # no longer, should the test fail before it lets the training go
            if pathlib.Path("go").exists():
                break
            time.sleep(0.02)


Telemetry.add = _hold
"""


def stage(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run a stage to its end, without DVC."""
    return run("python", f"stages/{name}.py", cwd=folder, check=False)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a Python command; its stderr goes to the same pipe as its output."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen((sys.executable, *words), cwd=folder, env=environment(folder), **pipes)


def refusal(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The line `filmstill: …` of a refused command, without that prefix; there must be one, and no traceback."""
    assert done.returncode == code, done.stderr
    return only_line(done.stderr)


def only_line(output: str) -> str:
    """The same of a command's output."""
    lines = [line for line in output.splitlines() if line.startswith("filmstill: ")]
    assert len(lines) == 1 and "Traceback" not in output, output
    return lines[0].removeprefix("filmstill: ")


def set_parameter(folder: Path, key: str, value: object) -> None:
    """Write `value` in the line of a dotted key in params.yaml; the other lines stay."""
    lines = (folder / "params.yaml").read_text().splitlines()
    at = -1
    for depth, name in enumerate(key.split(".")):
        at = next(n for n in range(at + 1, len(lines)) if re.match(rf"{'  ' * depth}{name}:", lines[n]))
    lines[at] = f"{lines[at].partition(':')[0]}: {value}"
    (folder / "params.yaml").write_text("\n".join(lines) + "\n")


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"condition is false after {TIMEOUT_SECONDS} s"
        time.sleep(0.05)


def hold(folder: Path, step: int) -> None:
    """Make trainings in `folder` wait after this step, until `let_go`."""
    with (folder / "src/filmstill/training/telemetry.py").open("a") as file:
        file.write(HOLD.format(step=step))


def wait_until_held(folder: Path) -> None:
    wait_for(lambda: (folder / "held").exists())


def let_go(folder: Path) -> None:
    """Let the held training go on, and later ones pass."""
    (folder / "go").touch()
