"""What `cluster check` makes of what nodes report, where no node here could be made to. No SLURM is needed."""

from dataclasses import replace
from pathlib import Path

import pytest

from filmstill.cluster.check_node import Report, Software
from filmstill.cluster.config import Resources
from filmstill.cluster.findings import Findings, Greeting, problems

SOFTWARE = Software("3.11.7", "2.13.0", "12.9", "/repo/src/filmstill")
GPUS = ["NVIDIA H100 80GB HBM3 79 GiB"] * 8
ASKED = Resources(nodes=2, gpus_per_node=8, tasks_per_node=1)


def healthy() -> Findings:
    """Two nodes, a process each, nothing wrong."""
    found = Findings(Path("/scratch/check"), ["node1", "node2"])
    for rank, node in enumerate(found.nodes):
        found.greetings[rank] = Greeting(node, 100.0, 100.3, 100.8)
        found.reports[rank] = Report(node, node, SOFTWARE, GPUS, True, [], "nccl", True, 0.001, 1e11)
    return found


def test_a_healthy_cluster_has_no_problems():
    assert problems(healthy(), ASKED, SOFTWARE) == []


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
    found = healthy()
    found.reports[1] = replace(found.reports[1], **change)
    [line] = problems(found, ASKED, SOFTWARE)
    assert line.startswith("node2: ") and says in line and "\n" not in line


def test_a_silent_node_and_one_without_python_are_named():
    found = healthy()
    del found.greetings[0], found.reports[0], found.reports[1]
    found.said[1] = "No module named filmstill"
    silent, lame = problems(found, ASKED, SOFTWARE)
    assert silent.startswith("node1: nothing of it arrived in /scratch/check")
    assert lame.startswith("node2: python does not run there: No module named filmstill")


def test_in_a_container_the_nodes_need_only_be_alike():
    found = healthy()
    other = replace(SOFTWARE, torch="2.12.0")
    found.reports = {rank: replace(report, software=other) for rank, report in found.reports.items()}
    assert problems(found, ASKED, None) == []
    assert len(problems(found, ASKED, SOFTWARE)) == 2


@pytest.mark.parametrize(
    ("login", "there", "shown", "ahead"),
    [
        (100.0, 100.4, 101.0, 0.0),  # between what the login wrote and when it looked: nothing is known to be wrong
        (100.0, 100.4, 160.0, 0.0),  # a slow file system
        (40.0, 100.4, 101.0, 0.0),  # a file read from a cache
        (100.0, 130.0, 101.0, 29.0),
        (100.0, 70.0, 101.0, -30.0),
        (None, 130.0, 101.0, 29.0),
    ],
)
def test_clocks_are_compared_by_what_each_side_can_have_seen(login, there, shown, ahead):
    assert Greeting("node2", login, there, shown).ahead() == pytest.approx(ahead)


@pytest.mark.parametrize(("there", "says"), [(130.0, "29 s ahead of"), (70.0, "30 s behind")])
def test_a_wrong_clock_is_named(there, says):
    found = healthy()
    found.greetings[1] = Greeting("node2", 100.0, there, 101.0)
    [line] = problems(found, ASKED, SOFTWARE)
    assert line.startswith(f"node2: its clock is {says} this machine's")


def test_processes_of_one_node_say_the_same_once():
    found = healthy()
    found.greetings[2] = found.greetings[1]
    found.reports[1] = found.reports[2] = replace(found.reports[1], gpus=[])
    assert len(problems(found, ASKED, SOFTWARE)) == 1
