"""A damaged file of any kind in .work is made again, or named: of a training, and of a fan-out.

`make kill-test` damages every file of every stage, which takes long.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kill_test import DAMAGE_TEST, with_helpers


@pytest.mark.parametrize("stage", ["teacher", "ode_pairs"])
def test_no_damage_changes_what_a_stage_publishes(copied: Path, stage: str):
    words = [sys.executable, str(DAMAGE_TEST), "kinds", stage]
    done = subprocess.run(words, cwd=copied, env=with_helpers(copied), capture_output=True, text=True, check=False)
    wrong = [line for line in done.stdout.splitlines() if re.match(r"\w+ \.work/", line) and ": ok (" not in line]
    assert (wrong, done.returncode) == ([], 0), done.stderr[-2000:]
