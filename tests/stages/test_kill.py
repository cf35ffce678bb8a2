"""kill -9 in every stage changes no artifact; `make kill-test` does the same with more kills."""

import random
from pathlib import Path

import pytest

from kill_test import STAGES, artifacts, kill_everywhere, recorded, repair_lock, repair_rwlock
from repository import clone, dvc

SECONDS = dict.fromkeys(STAGES, 5.0) | {"provided": 0.3, "prompts": 1.2, "samples": 15.0}  # roughly


def test_artifacts_after_kills_are_those_of_an_undisturbed_run(smoke: Path, tmp_path: Path):
    killed = clone(tmp_path / "killed")
    assert kill_everywhere(killed, SECONDS, 1, random.Random(0)) == len(STAGES)
    assert artifacts(smoke) == artifacts(killed)


@pytest.mark.parametrize("left", [0, 8192])  # bytes: killed when DVC had opened the file, or written a first buffer
def test_a_torn_lock_is_repaired_as_the_readme_says(smoke: Path, copied: Path, left: int):
    lock, before = copied / "dvc.lock", recorded(smoke)
    lock.write_bytes(lock.read_bytes()[:left])
    for made in copied.glob("data/*/*.safetensors"):
        made.unlink()
    assert before is not None and recorded(copied) != before
    repair_lock(copied, before, STAGES)
    assert recorded(copied) == before
    assert artifacts(copied) == artifacts(smoke)


def test_a_torn_rwlock_is_repaired_as_the_readme_says(copied: Path):
    (copied / ".dvc/tmp/rwlock").write_text("")
    refused = dvc(copied, "repro", check=False)
    assert refused.returncode == 255
    unreadable = "ERROR: failed to reproduce 'provided': Unable to read RWLock-file '.dvc/tmp/rwlock'. "
    assert refused.stderr.startswith(f"{unreadable}JSON structure is corrupted"), refused.stderr
    repair_rwlock(copied)
    assert dvc(copied, "repro").stdout.endswith("\nData and pipelines are up to date.\n")
