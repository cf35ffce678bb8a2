"""`cluster check` on a real cluster: the results of healthy nodes, and the problems it names."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from filmstill.cluster.check import cluster_check
from filmstill.errors import FilmstillError
from lab import Lab
from repository import ROOT

BASE = "executor: slurm\ndefaults: {nodes: 2, cpus_per_task: 1, memory_gb: 2, "


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A repository without sources: params.yaml, dvc.yaml, and the cluster.yaml that a test writes."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # wide enough that no row of the table is wrapped
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(capsys: pytest.CaptureFixture[str], cluster: str, pending_minutes: float = 2.0) -> tuple[list[str], str]:
    """Run `cluster check` with this cluster.yaml; returns the problems, and everything that is printed."""
    Path("cluster.yaml").write_text(cluster)
    try:
        cluster_check(pending_minutes)
    except FilmstillError as error:
        assert "to fix before jobs can run" in str(error)
    text = capsys.readouterr().out
    return [line.removeprefix("to fix: ") for line in text.splitlines() if line.startswith("to fix: ")], text


def alive(lab: Lab) -> list:
    return [job for job in lab.squeue() if job.state in ("PD", "R", "CG") and job.name.startswith("check-")]


def test_local_says_how_to_start(capsys):
    cluster_check(1.0)
    assert "cp cluster.example.yaml cluster.yaml" in capsys.readouterr().out


def test_all_is_well(lab: Lab, capsys, folder: Path):
    fix, text = check(capsys, BASE + "tasks_per_node: 2}")
    assert fix == [] and "all well" in text
    for node in ("node1", "node2"):
        assert re.search(
            rf"{node} +{platform.node()} +none +\S+ +\S+ +{platform.python_version()} +\+0\.0 +seen", text
        ), text
    assert re.search(r"all-reduce of 64 MiB over 4 ranks \(gloo\): [\d.]+ ms, [\d.]+ GB/s", text), text
    assert text.count("nodes x 2 ranks") == 1  # one job: both stages request the same
    assert list((folder / ".work/check").iterdir()) == [] and alive(lab) == []


def test_every_refusal_is_listed_and_no_job_submitted(lab: Lab, capsys, folder: Path):
    before = lab.newest()
    fix, _ = check(capsys, BASE + "partition: gpux}\nstages: {samples: {partition: main, cpus_per_task: 9}}")
    assert fix == [
        "cluster.yaml: defaults.partition: is 'gpux', allowed: far, high, low, main, short",
        "cluster.yaml: stages.samples.cpus_per_task: is 9, allowed: at most 8 per rank with 1 per node: a "
        "node of partition main has 8 CPUs",
    ]
    assert lab.newest() == before and not (folder / ".work").exists()


def test_gpus_that_torch_does_not_see_and_a_python_that_is_not_there(lab: Lab, capsys):
    """Two layouts give two jobs. The test cluster's GPUs are fake, so torch sees none."""
    fix, _ = check(
        capsys, BASE + "}\nstages: {ode_init: {gpus_per_node: 1}, distill: {nodes: 1, python: /nowhere/python}}"
    )
    assert [line.split(" (")[0] for line in fix[:2]] == [f"node{n}: torch sees 0 of 1 GPUs" for n in (1, 2)]
    assert len(fix) == 3 and "python does not run there" in fix[-1] and "/nowhere/python: No such file" in fix[-1]


def test_a_job_that_does_not_start_is_cancelled_with_slurm_s_reason(lab: Lab, folder: Path):
    Path("cluster.yaml").write_text(BASE + "sbatch: {begin: now+1hour}}")
    with pytest.raises(FilmstillError, match=r"its job has waited 0\.02 minutes \(BeginTime\) and is cancelled"):
        cluster_check(0.02)
    lab.wait_until(lambda: alive(lab) == [], 10)
    assert list((folder / ".work/check").iterdir()) == []


def impatient(folder: Path) -> Path:
    """A python that waits five seconds, instead of thirty, for the other ranks' files to become visible."""
    script = folder / "impatient"
    code = (
        "import sys, pathlib; from filmstill.cluster import check_node; check_node.VISIBLE_SECONDS = 5.0; "
        "check_node.main(pathlib.Path(sys.argv[3]))"
    )
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    script.chmod(0o755)
    return script


def test_a_node_that_does_not_see_the_scratch_is_named(lab: Lab, capsys, folder: Path):
    """On node2 an empty file system is mounted over the scratch."""
    (folder / "scratch").mkdir()
    lab.stop_slurmd("node2")
    hide = f"mount -t tmpfs none {folder}/scratch && exec slurmd -N node2"
    variables = {**os.environ, **lab.environment(), "SLURMD_NODENAME": "node2"}
    done = subprocess.run(["unshare", "--mount", "sh", "-c", hide], env=variables, capture_output=True, text=True)
    try:
        if done.returncode:
            pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
        lab.wait_until(lambda: lab.node_state("node2") == "idle", 20)
        fix, text = check(capsys, f"scratch: {folder}/scratch\n{BASE}python: {impatient(folder)}}}")
    finally:
        lab.stop_slurmd("node2")
        lab.start_node("node2")
    [line] = fix
    assert line.startswith(f"node2: wrote nothing into {folder}/scratch/"), text
    assert re.search(r"node2 .*NOT SEEN", text) and re.search(r"node1 .* seen", text), text
    assert (folder / ".work").resolve().parent == folder / "scratch"
