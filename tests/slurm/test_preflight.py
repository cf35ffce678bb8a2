"""A cluster.yaml that this cluster can never run is refused in one line, and nothing is submitted."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from filmstill.cluster import slurm
from filmstill.cluster.config import Cluster, Resources
from filmstill.cluster.preflight import preflight, sbatch_flags, sbatch_script
from filmstill.errors import FilmstillError
from lab import Lab

ROOT = Path(__file__).resolve().parents[2]


def asking(**own: Any) -> Cluster:
    """A cluster.yaml in which distill requests this."""
    return Cluster(executor="slurm", stages={"distill": own})


def refusal(cluster: Cluster) -> str:
    with pytest.raises(FilmstillError) as error:
        preflight("distill", cluster, ROOT)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"partition": "low", "nodes": 2, "gpus_per_node": 8, "cpus_per_task": 1, "memory_gb": 64},
        {"partition": "short", "time": "0:02:00", "signal_seconds": 30},
        {"partition": "short,main", "time": "0:03:00"},
        {"sbatch": {"exclusive": True, "nice": 10}},
    ],
)
def test_what_the_cluster_has_is_taken_and_not_submitted(lab: Lab, own: dict):
    before = lab.newest()
    preflight("distill", asking(**own), ROOT)
    assert lab.newest() == before


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"partition": "gpux"}, "stages.distill.partition: is 'gpux', allowed: far, high, low, main, short"),
        ({"partition": "main,gpux"}, "stages.distill.partition: is 'gpux', allowed: far, high, low, main, short"),
        (
            {"gpus_per_node": 9},
            "stages.distill.gpus_per_node: is 9, allowed: at most 8, which a node of partition main",
        ),
        ({"nodes": 3}, "stages.distill.nodes: is 3, allowed: at most 2, which partition main gives to a job"),
        (
            {"cpus_per_task": 9},
            "stages.distill.cpus_per_task: is 9, allowed: at most 8 per rank with 1 per node",
        ),
        (
            {"cpus_per_task": 3, "tasks_per_node": 3},
            "stages.distill.cpus_per_task: is 3, allowed: at most 2 per rank with 3 per node",
        ),
        ({"memory_gb": 65}, "stages.distill.memory_gb: is 65, allowed: at most 64, which a node of partition main has"),
        (
            {"partition": "short", "time": "0:03:00"},
            "stages.distill.time: is '0:03:00', allowed: at most 2 minutes, the MaxTime of partition short; else",
        ),
        (
            {"constraint": "a100"},
            "stages.distill: SLURM refuses the job: sbatch: Invalid feature specification (requested: constraint a100)",
        ),
        (
            {"sbatch": {"reservation": "x"}},
            "SLURM refuses the job: sbatch: Requested reservation is invalid (requested: reservation x)",
        ),
        ({"sbatch": {"licenses": "x"}}, "SLURM refuses the job: sbatch: Invalid license specification"),
        ({"sbatch": {"nodelist": "x"}}, "SLURM refuses the job: sbatch: Invalid node name specified"),
        ({"sbatch": {"gres": "gpu:a100:1"}}, "SLURM refuses the job: sbatch: Requested node configuration is not"),
        ({"sbatch": {"exclusiv-ely": True}}, "SLURM refuses the job: sbatch: unrecognized option '--exclusiv-ely'"),
    ],
)
def test_what_the_cluster_has_not_is_one_line(lab: Lab, own: dict, says: str):
    before = lab.newest()
    line = refusal(asking(**own))
    assert line.startswith("cluster.yaml: ") and says in line, line
    assert lab.newest() == before


def test_a_key_is_named_by_the_section_that_sets_it(lab: Lab):
    line = refusal(Cluster(executor="slurm", defaults=Resources(nodes=3)))
    assert line.startswith("cluster.yaml: defaults.nodes: is 3")


def test_a_shard_is_tested_as_one_process(lab: Lab):
    cluster = Cluster(executor="slurm", defaults=Resources(nodes=3, gpus_per_node=8))
    assert "at most 1 per rank with 8 per node" in refusal(cluster)  # of a training
    assert preflight("samples", cluster, ROOT) is None


def test_a_node_that_is_away_is_waited_for(lab: Lab):
    update = ("scontrol", "update", "nodename=node2")
    subprocess.run([*update, "state=drain", "reason=test"], check=True)
    try:
        preflight("distill", asking(nodes=2), ROOT)
        assert "Invalid feature" in refusal(asking(nodes=2, constraint="a100"))
    finally:
        subprocess.run([*update, "state=resume"], check=True)


def test_a_folder_of_this_machine_is_not_shared_with_another_host(lab: Lab, tmp_path: Path):
    for cluster in (asking(partition="far"), asking(partition="main,far")):
        cluster.scratch = str(tmp_path)
        line = refusal(cluster)
        assert (
            re.match(rf"cluster\.yaml: scratch: is '{tmp_path}', on \S+ of this machine alone", line) and "far1" in line
        )
    cluster.scratch = None
    assert refusal(cluster).startswith(f"the repository: is '{ROOT}', on ")
    cluster.stages = {}
    cluster.scratch = str(tmp_path)  # main's nodes are this host under other names
    preflight("distill", cluster, ROOT)
    cluster.scratch = str(tmp_path / "missing")
    assert "scratch: is" in refusal(cluster) and "No such file" in refusal(cluster)


def test_without_slurm_s_commands_the_line_says_where_to_go(lab: Lab, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "set executor: local, or log in to a login node" in refusal(asking())


def test_a_silent_controller_is_no_refusal_of_the_file(lab: Lab, monkeypatch, tmp_path: Path):
    conf = tmp_path / "slurm.conf"
    lines = [line for line in lab.conf.read_text().splitlines() if not line.startswith("SlurmctldPort=")]
    conf.write_text("\n".join([*lines, "SlurmctldPort=1", "MessageTimeout=2", ""]))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    with pytest.raises(slurm.Unreachable):
        refusal(asking())


def test_a_job_of_one_name_waits_for_the_other_and_gets_what_was_asked(lab: Lab, tmp_path: Path):
    """SLURM applies the flags: singleton jobs, requeue, nodes, tasks, memory, time limit, GPUs."""
    resources = Resources(nodes=2, tasks_per_node=2, gpus_per_node=2, cpus_per_task=1, memory_gb=3, time="0:10:00")
    name = slurm.job_name("distill", "0123456789abcdef", tmp_path)
    script = sbatch_script(sbatch_flags(resources, name) | {"output": "/dev/null"}, ["sleep 60"])
    jobs = [slurm.run("sbatch", "--parsable", text=script).strip() for _ in range(2)]
    try:
        lab.wait_until(lambda: [job.state for job in slurm.queued(name)] == ["RUNNING", "PENDING"], 20)
        assert slurm.queued(name)[1].reason == "Dependency"
        shown = slurm.run("scontrol", "show", "job", jobs[0])
        for fact in ("Requeue=1", "NumNodes=2", "NumTasks=4", "CPUs/Task=1", "MinMemoryNode=3G", "TimeLimit=00:10:00"):
            assert fact in shown, shown
        assert "gres:gpu:2" in shown
    finally:
        for job in jobs:
            slurm.cancel(job)


def test_what_is_tested_is_what_submitit_submits(tmp_path: Path):
    from submitit.slurm.slurm import _make_sbatch_string

    flags = sbatch_flags(
        Resources(partition="main", gpus_per_node=8, sbatch={"mail-user": "me@x", "exclusive": True}), "a-b.c"
    )
    submitted = _make_sbatch_string("true", tmp_path, nodes=1, time=60, mem="8GB", additional_parameters=flags)
    tested = sbatch_script(flags, [])

    def lines(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith("#SBATCH")}

    others = {line.split("=")[0] for line in lines(submitted) - lines(tested)}
    assert lines(tested) < lines(submitted)
    assert others == {"#SBATCH --output", "#SBATCH --error", "#SBATCH --open-mode"}
