"""README shows the results of the committed run; the paths and make targets it names exist."""

import re

from readme_table import ROOT, filled

README = (ROOT / "README.md").read_text()


def test_results_are_those_of_the_committed_run():
    assert filled(README) == README, "run `make readme`"


def test_every_path_it_names_exists():
    named = set(re.findall(r"`((?:src|stages|workflow|data|tests|params)/[\w./-]+\.\w+)`", README))
    made_by_a_run = {"data/evaluate/report.html"}
    assert {name for name in named - made_by_a_run if not (ROOT / name).exists()} == set()


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))  # not the verb in a sentence
    assert {"repro", "test", "kill-test"} <= commands <= targets


def test_ci_runs_lint_and_every_test():
    steps = (ROOT / ".ci/run").read_text().splitlines()
    assert {"set -euo pipefail", "make lint", "make test", "make test-slurm"} <= set(steps)
