"""kill -9 in every stage changes nothing: what `make kill-test` shows with more kills."""

import random
from pathlib import Path

import pytest

from kill_test import STAGES, artifacts, kill_everywhere, mend_lock, recorded
from repository import clone

SECONDS = dict.fromkeys(STAGES, 6.0) | {"prompts": 3.0, "ode_pairs": 9.0, "samples": 25.0, "evaluate": 10.0}  # about


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
    mend_lock(copied, before, STAGES)
    assert recorded(copied) == before
    assert artifacts(copied) == artifacts(smoke)
