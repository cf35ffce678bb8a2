"""How the processes of a stage start, take turns and end."""

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from filmstill.work.shard import shared_machine
from repository import ROOT, environment

TURN = Path("turn")


def python(code: str, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, cwd=cwd, env=environment(cwd), stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SCRIPT = "from filmstill.runtime.exit import exit_code, run_script; "
IMPORTED = "sys.exit('torch' in sys.modules)"
FANNED_OUT = """
import runpy, sys
from pathlib import Path
from filmstill.params.load import Values
from filmstill.work import fanout
from filmstill.work.stage import Stage
fanout.make_here = fanout._remove_unproven = lambda *of_shards: None
runpy.run_path("stages/{stage}.py")["main"](Stage("{stage}", next(Path(".work/{stage}").iterdir()), Values.read()))
"""


def test_the_filter_does_not_wait_for_torch() -> None:
    assert python(f"import runpy, sys; runpy.run_path('stages/prompts.py'); {IMPORTED}").returncode == 0


@pytest.mark.parametrize("stage", ["ode_pairs", "samples"])
def test_a_stage_that_only_fans_out_does_not_wait_for_torch(copied: Path, stage: str) -> None:
    done = python(FANNED_OUT.format(stage=stage) + IMPORTED, cwd=copied)
    assert done.returncode == 0, done.stderr


def test_a_script_that_ends_has_said_all_and_runs_nothing_more() -> None:
    code = "import atexit; atexit.register(print, 'more'); run_script(lambda: print('all') or 3)"
    done = python(SCRIPT + code, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (3, "all\n")


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_failure(closed: int) -> None:
    code = SCRIPT + "run_script(lambda: exit_code(lambda: print()))"
    words = ["bash", "-c", f'exec "$0" -c "$1" {closed}>&-', sys.executable, code]
    assert subprocess.run(words, env=environment(ROOT), check=False).returncode == 0


def test_what_could_not_be_printed_is_no_success() -> None:
    with open("/dev/full", "w") as full:
        done = python(SCRIPT + "run_script(lambda: exit_code(lambda: print('lost')))", stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("filmstill: a file: disk full while writing; free some space")


SCRIPTS = [
    str(path.relative_to(ROOT)) for folder in ("stages", "workflow/scripts") for path in (ROOT / folder).glob("*.py")
]


@pytest.mark.parametrize("script", [*SCRIPTS, "-m filmstill check"])
def test_another_interpreter_is_told_apart_in_one_line(script: str) -> None:
    """-S: without the packages of .venv, as the system's Python that `.venv/bin/dvc repro` may find on PATH."""
    words = [sys.executable, "-S", *script.split()]
    done = subprocess.run(words, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"filmstill: {sys.executable}: has no numpy, omegaconf, ")
    assert line.endswith("run `source .venv/bin/activate` first, or `make repro`, which makes .venv and runs all")


def test_shards_start_side_by_side_and_are_timed_one_at_a_time() -> None:
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(shared_machine(TURN))
        timed = threading.Thread(target=second.enter_context(shared_machine(TURN)))
        timed.start()
        timed.join(0.3)
        assert timed.is_alive()  # the first still holds the shared lock
        first.close()
        timed.join(5)
        assert not timed.is_alive()
        third = threading.Thread(target=lambda: ExitStack().enter_context(shared_machine(TURN)))
        third.start()
        third.join(0.3)
        assert third.is_alive()  # the second holds the exclusive lock
        second.close()
        third.join(5)
        assert not third.is_alive()


def test_jobs_of_slurm_wait_for_nobody() -> None:
    with shared_machine(None) as first, shared_machine(None) as second:
        first()
        second()
    assert not TURN.exists()


@pytest.mark.parametrize("line", ["raise MemoryError", "import torch; torch.empty(10**15)"])
def test_lack_of_memory_is_one_line(line: str) -> None:
    code = f"{SCRIPT}\ndef main():\n    {line}\nrun_script(lambda: exit_code(main))"
    done = python(code)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("filmstill: out of memory (") and "filmstill plan" in done.stderr


def test_another_error_of_the_program_keeps_its_traceback() -> None:
    done = python(f"{SCRIPT}\ndef main():\n    raise RuntimeError('a fault')\nrun_script(lambda: exit_code(main))")
    assert done.returncode == 1 and "Traceback" in done.stderr and "a fault" in done.stderr
