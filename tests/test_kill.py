"""kill -9 in every stage changes nothing: what `make kill-test` shows, held by `make test`."""

import random
from pathlib import Path

from kill_test import KILLS, STAGES, artifacts, kill_everywhere
from repository import clone

SECONDS = dict.fromkeys(STAGES, 4.0) | {"samples": 12.0, "ode_pairs": 6.0}


def test_artifacts_after_kills_are_those_of_the_calm_run(smoke: Path, tmp_path: Path):
    killed = clone(tmp_path / "killed")
    landed = kill_everywhere(killed, SECONDS, random.Random(0))
    assert landed >= len(STAGES) * KILLS - 1
    calm, after = artifacts(smoke), artifacts(killed)
    assert calm == after
