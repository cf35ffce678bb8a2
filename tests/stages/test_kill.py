"""kill -9 in every stage changes nothing: what `make kill-test` shows with more kills."""

import random
from pathlib import Path

import pytest

from kill_test import STAGES, artifacts, kill_everywhere, recorded, repair_lock, repair_rwlock
from repository import clone, dvc

SECONDS = dict.fromkeys(STAGES, 5.0) | {"prompts": 1.2, "samples": 15.0}  # about


def test_artifacts_after_kills_are_those_of_the_calm_run(smoke: Path, tmp_path: Path):
    killed = clone(tmp_path / "killed")
    assert kill_everywhere(killed, SECONDS, 1, random.Random(0)) == len(STAGES)
    assert artifacts(smoke) == artifacts(killed)


@pytest.mark.parametrize("left", [0, 8192])  # bytes: DVC has opened the file, or written its first buffer
def test_a_torn_lock_is_mended_as_the_readme_says(smoke: Path, copied: Path, left: int):
    lock, before = copied / "dvc.lock", recorded(smoke)
    lock.write_bytes(lock.read_bytes()[:left])
    for made in copied.glob("data/*/*.safetensors"):
        made.unlink()
    assert before is not None and recorded(copied) != before
    repair_lock(copied, before, STAGES)
    assert recorded(copied) == before
    assert artifacts(copied) == artifacts(smoke)


def test_a_torn_rwlock_is_mended_as_the_readme_says(copied: Path):
    (copied / ".dvc/tmp/rwlock").write_text("")
    refused = dvc(copied, "repro", check=False)
    assert refused.returncode != 0 and "Unable to read RWLock-file" in refused.stderr
    repair_rwlock(copied)
    assert "up to date" in dvc(copied, "repro").stdout
