"""Stages where the home folder cannot be written, as in a container with another user: no cache may stop a run."""

import shutil
from pathlib import Path

import pytest

from repository import dvc


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("stage", ["ode_pairs", "evaluate"])  # Snakemake's cache; matplotlib's
def test_a_stage_needs_no_home(copied: Path, monkeypatch: pytest.MonkeyPatch, stage: str, variable: str):
    shutil.rmtree(copied / ".work" / stage)
    monkeypatch.setenv(variable, "/proc/nothing")
    done = dvc(copied, "repro", "--force", "--single-item", stage)
    assert "warning" not in (done.stdout + done.stderr).lower()
