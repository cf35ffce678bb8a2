"""`cluster check`'s problems for reports that the nodes of a test cluster cannot produce. Needs no SLURM."""

from dataclasses import replace
from pathlib import Path

import pytest

from filmstill.cluster.check_node import RankReport, Software
from filmstill.cluster.check_results import CheckResults, ShellReport, problems
from filmstill.cluster.config import Resources

SOFTWARE = Software("3.11.7", "2.13.0", "12.9", "/repo/src/filmstill")
GPUS = ["NVIDIA H100 80GB HBM3 79 GiB"] * 8
RESOURCES = Resources(nodes=2, gpus_per_node=8, tasks_per_node=1)


def healthy() -> CheckResults:
    """Results of two nodes with one rank each and no problem."""
    results = CheckResults(Path("/scratch/check"), ["node1", "node2"])
    for rank, node in enumerate(results.nodes):
        results.shells[rank] = ShellReport(node, 100.0, 100.3, 100.8)
        results.reports[rank] = RankReport(node, node, SOFTWARE, GPUS, True, [], "nccl", True, 0.001, 1e11)
    return results


def test_a_healthy_cluster_has_no_problems():
    assert problems(healthy(), RESOURCES, SOFTWARE) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gpus": GPUS[:7]}, "node2: torch sees 7 of 8 GPUs (torch is built for CUDA 12.9)"),
        ({"software": replace(SOFTWARE, torch="2.12.0")}, "node2: runs python 3.11.7, torch 2.12.0"),
        ({"software": replace(SOFTWARE, filmstill="/old/filmstill")}, "filmstill of /old/filmstill, not python 3.11.7"),
        ({"unseen": [0]}, "node2: does not see what node1 wrote into the scratch"),
        ({"backend": None, "error": "NCCL WARN no route"}, "node2: the all-reduce failed: NCCL WARN no route; let the"),
        ({"right": False}, "node2: the all-reduce gave a wrong sum over nccl"),
    ],
)
def test_a_bad_report_is_one_line_that_names_the_node(change: dict, says: str):
    results = healthy()
    results.reports[1] = replace(results.reports[1], **change)
    [line] = problems(results, RESOURCES, SOFTWARE)
    assert line.startswith("node2: ") and says in line and "\n" not in line


def test_a_silent_node_and_one_without_python_are_named():
    results = healthy()
    del results.shells[0], results.reports[0], results.reports[1]
    results.errors[1] = "No module named filmstill"
    silent, lame = problems(results, RESOURCES, SOFTWARE)
    assert silent.startswith("node1: wrote nothing into /scratch/check")
    assert lame.startswith("node2: python does not run there: No module named filmstill")


def test_in_a_container_the_nodes_need_only_be_alike():
    results = healthy()
    other = replace(SOFTWARE, torch="2.12.0")
    results.reports = {rank: replace(report, software=other) for rank, report in results.reports.items()}
    assert problems(results, RESOURCES, None) == []
    assert len(problems(results, RESOURCES, SOFTWARE)) == 2


@pytest.mark.parametrize(
    ("login", "there", "seen", "ahead"),
    [
        (100.0, 100.4, 101.0, 0.0),  # between the login's two times: not known to be wrong
        (100.0, 100.4, 160.0, 0.0),  # a slow file system
        (40.0, 100.4, 101.0, 0.0),  # a file read from a cache
        (100.0, 130.0, 101.0, 29.0),
        (100.0, 70.0, 101.0, -30.0),
        (None, 130.0, 101.0, 29.0),
    ],
)
def test_clocks_are_compared_by_what_each_side_can_have_seen(login, there, seen, ahead):
    assert ShellReport("node2", login, there, seen).ahead() == pytest.approx(ahead)


@pytest.mark.parametrize(("there", "says"), [(130.0, "29 s ahead of"), (70.0, "30 s behind")])
def test_a_wrong_clock_is_named(there, says):
    results = healthy()
    results.shells[1] = ShellReport("node2", 100.0, there, 101.0)
    [line] = problems(results, RESOURCES, SOFTWARE)
    assert line.startswith(f"node2: its clock is {says} this machine's")


def test_processes_of_one_node_say_the_same_once():
    results = healthy()
    results.shells[2] = results.shells[1]
    results.reports[1] = results.reports[2] = replace(results.reports[1], gpus=[])
    assert len(problems(results, RESOURCES, SOFTWARE)) == 1
