"""How the processes of a stage start, take turns and end."""

import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from filmstill.cluster.config import CLUSTER
from filmstill.runtime.shard_process import shared_machine
from repository import ROOT, environment

SHARD = Path("work/shards/samples-real.safetensors")


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, cwd=ROOT, env=environment(ROOT), stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SHARD.parent.mkdir(parents=True)


@pytest.mark.parametrize("stage", ["prompts", "ode_pairs", "samples"])
def test_stages_that_compute_nothing_themselves_do_not_wait_for_torch(stage: str) -> None:
    code = f"import runpy, sys; runpy.run_path('stages/{stage}.py'); sys.exit('torch' in sys.modules)"
    assert python(code).returncode == 0


def test_who_leaves_has_said_all_and_runs_nothing_more() -> None:
    ending = "from filmstill.runtime.exit import leave; print('all'); leave(3)"
    code = f"import atexit; atexit.register(print, 'more'); {ending}"
    done = python(code, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (3, "all\n")


def test_what_could_not_be_printed_is_no_success() -> None:
    code = "from filmstill.runtime.exit import exit_code, leave; leave(exit_code(lambda: print('lost')))"
    with open("/dev/full", "w") as full:
        done = python(code, stdout=full)
    assert done.returncode == 2
    assert (
        done.stderr
        == "filmstill: a file: disk full while writing; free some space and run again, finished work is kept\n"
    )


def test_shards_start_side_by_side_and_are_timed_one_at_a_time() -> None:
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(shared_machine(SHARD))
        timed = threading.Thread(target=second.enter_context(shared_machine(SHARD)))
        timed.start()
        timed.join(0.3)
        assert timed.is_alive()  # the first is still starting
        first.close()
        timed.join(5)
        assert not timed.is_alive()
        third = threading.Thread(target=lambda: ExitStack().enter_context(shared_machine(SHARD)))
        third.start()
        third.join(0.3)
        assert third.is_alive()  # the second one's clock runs
        second.close()
        third.join(5)
        assert not third.is_alive()


def test_jobs_of_slurm_wait_for_nobody() -> None:
    CLUSTER.write_text("{executor: slurm}\n")
    with shared_machine(SHARD) as first, shared_machine(SHARD) as second:
        first()
        second()
    assert not (SHARD.parents[1] / "turn").exists()
