"""DVC's experiments as SLURM jobs: the queue of docs/cluster.md, and what is left of an experiment that is killed."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations

import pytest

from lab import Lab
from repository import environment
from runs import TIMEOUT_SECONDS, Repository

RATES = {"slow": "1e-5", "usual": "1e-4", "fast": "1e-3", "twin": "1e-3"}  # distill.lr by experiment
METRICS = "data/distill/metrics.json"


class Experiments(Repository):
    """A repository whose experiments DVC runs."""

    def dvc(self, *words: str, stream: str = "stdout") -> str:
        """Run a dvc command; returns what it writes to `stream`."""
        process = self.start(*words)
        found = dict(zip(("stdout", "stderr"), process.communicate(), strict=True))
        assert process.returncode == 0, f"{words}\n{found['stdout'][-3000:]}\n{found['stderr'][-3000:]}"
        return found[stream]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a dvc command."""
        variables = {**environment(self.folder), **self.lab.environment()}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen((sys.executable, "-m", "dvc", *words), cwd=self.folder, env=variables, **pipes)

    def queue(self, name: str, **distill: object) -> None:
        changed = [word for key, value in distill.items() for word in ("-S", f"distill.{key}={value}")]
        self.dvc("exp", "run", "--queue", "--name", name, *changed, "distill")

    def until(self, name: str, status: str) -> None:
        """Wait until a queued experiment has this status."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while status not in (line := self.status(name)):
            assert "Failed" not in line and time.monotonic() < end, f"{line}\n{self.dvc('queue', 'logs', name)}"
            time.sleep(1)

    def status(self, name: str) -> str:
        return next(line for line in self.dvc("queue", "status").splitlines() if f" {name} " in line)

    def jobs_in_accounting(self) -> list[tuple[str, str, str]]:
        """(start, end, state) of every distillation that accounting knows, the latest last."""
        shown = ("--noheader", "--parsable2", "--allocations", "--format=JobName,Start,End,State,WorkDir")
        rows = [line.split("|") for line in self.lab.ask("sacct", *shown).splitlines()]
        ours = [row for row in rows if row[0].startswith("distill-") and str(self.folder) in row[4]]
        return [(start, end, state) for _, start, end, state, _ in ours]


@pytest.fixture(scope="module")
def experiments(
    made: Repository, lab_with_accounting: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Experiments]:
    """A copy of the repository on the cluster with accounting; its training uses one node."""
    folder = tmp_path_factory.mktemp("experiments") / "repository"
    shutil.copytree(made.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".work"))
    found = Experiments(folder, lab_with_accounting)
    found.configure(nodes=1)
    yield found
    found.dvc("queue", "stop", "--kill")


def test_experiments_of_the_queue_train_side_by_side(experiments: Experiments):
    """Two of the four need the same work: one of them makes it, the other waits for it and takes it."""
    for name, rate in RATES.items():
        experiments.queue(name, lr=rate, steps=6)
    experiments.dvc("queue", "start", "--jobs", str(len(RATES)))
    for name in RATES:
        experiments.until(name, "Success")
    jobs = experiments.lab.wait_until(lambda: completed(experiments, 3), 30)
    assert any(max(a[0], b[0]) < min(a[1], b[1]) for a, b in combinations(jobs, 2)), jobs
    assert len(list(experiments.folder.glob(".work/distill/*/done.json"))) == 3
    said = [experiments.dvc("queue", "logs", name) for name in ("fast", "twin")]
    assert sum("holds .work/distill/" in log and "already made" in log for log in said) == 1


def completed(experiments: Experiments, count: int) -> list[tuple[str, str, str]]:
    """The finished jobs in accounting, once it has that many: it lags behind the controller."""
    jobs = [job for job in experiments.jobs_in_accounting() if job[2] == "COMPLETED"]
    return jobs if len(jobs) == count else []


def test_their_results_are_compared_applied_and_made_branches(experiments: Experiments):
    shown = json.loads(experiments.dvc("exp", "show", "--json"))
    found = {row["name"]: row["revs"][0]["data"] for baseline in shown for row in baseline["experiments"] or []}
    assert found.keys() == RATES.keys()
    for name, rate in RATES.items():
        assert found[name]["params"]["params.yaml"]["data"]["distill"]["lr"] == float(rate)
        experiments.dvc("exp", "branch", name, f"try-{name}")
    losses = {name: row["metrics"][METRICS]["data"]["loss_ratio"] for name, row in found.items()}
    assert len(set(losses.values())) == 3 and losses["twin"] == losses["fast"]
    compared = json.loads(experiments.dvc("metrics", "diff", "--json", "try-slow", "try-fast"))[METRICS]
    assert compared["loss_ratio"]["old"] == losses["slow"] and compared["loss_ratio"]["new"] == losses["fast"]
    experiments.dvc("exp", "apply", "fast")
    assert json.loads((experiments.folder / METRICS).read_text())["loss_ratio"] == losses["fast"]
    subprocess.run(["git", "checkout", "--quiet", "--", "."], cwd=experiments.folder, check=True)


def test_a_killed_experiment_takes_its_job_with_it_and_the_next_one_resumes(experiments: Experiments):
    """DVC removes the folder of the experiment, with the sources of the job; the checkpoints are the repository's."""
    before = set(experiments.folder.glob(".work/distill/*"))
    experiments.queue("killed", lr="2e-3", steps=30)
    starts = experiments.start("queue", "start")  # which may take longer than the training
    (work,) = experiments.lab.wait_until(lambda: set(experiments.folder.glob(".work/distill/*")) - before, 120)
    experiments.lab.wait_until(lambda: any(work.glob("checkpoints/step-*")), 120)
    with experiments.frozen(ranks=("0",)):  # so that it does not end meanwhile
        assert starts.wait(TIMEOUT_SECONDS) == 0
        experiments.dvc("queue", "kill", "killed")
    experiments.lab.wait_until(lambda: "Failed" in experiments.status("killed"), 60)
    assert "is cancelled, because DVC removes the experiment's folder" in experiments.dvc("queue", "logs", "killed")
    saved = max(int(path.name.removeprefix("step-")) for path in work.glob("checkpoints/step-*"))
    assert saved > 0
    pruned = experiments.filmstill("prune", "--dry-run").stdout
    assert f"would remove .work/distill/{work.name}" not in pruned
    changed = ("-S", "distill.lr=2e-3", "-S", "distill.steps=30")
    shown = experiments.dvc("exp", "run", "--temp", *changed, "distill", stream="stderr")
    begins = re.search(r"\| (\d+)/30 \[00:00<", shown)
    assert begins and int(begins[1]) >= saved, shown
    assert len(list(work.glob("jobs/*"))) == 2
    states = [state.split()[0] for _, _, state in experiments.jobs_in_accounting()]
    assert states[-2:] == ["CANCELLED", "COMPLETED"]
