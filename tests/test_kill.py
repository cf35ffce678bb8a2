"""kill -9 in every stage changes nothing: what `make kill-test` shows with more kills."""

import random
from pathlib import Path

from kill_test import STAGES, artifacts, kill_everywhere
from repository import clone

SECONDS = dict.fromkeys(STAGES, 6.0) | {"prompts": 3.0, "ode_pairs": 9.0, "samples": 25.0, "evaluate": 10.0}  # about


def test_artifacts_after_kills_are_those_of_the_calm_run(smoke: Path, tmp_path: Path):
    killed = clone(tmp_path / "killed")
    assert kill_everywhere(killed, SECONDS, 1, random.Random(0)) == len(STAGES)
    assert artifacts(smoke) == artifacts(killed)
