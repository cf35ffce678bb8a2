"""The cluster of the tests is a real SLURM: it starts jobs, loses nodes, preempts, restarts, and leaves nothing."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import lab_host
from filmstill.errors import FilmstillError
from lab import Lab
from lab_processes import lives

HERE = Path(__file__).parent
WAITING = """
import time
from pathlib import Path

import lab_host
from runs import at_work

lab_host.SYSTEM_CONF = Path("{folder}/slurm.conf")


def test(lab):
    with at_work(lab):
        Path("{folder}/up").touch()
        time.sleep(60)
"""


def ends(lab: Lab, job: int, seconds: float = 30) -> str:
    """The final state of a job."""
    lab.wait_until(lambda: lab.job(job).state not in ("PD", "R", "CG"), seconds)
    return lab.job(job).state


def at_work(lab: Lab, folder: Path, script: str, **flags: object) -> int:
    """Submit a job and wait until its script runs: the controller lists it as running before its nodes start it."""
    job = lab.submit(f"touch {folder}/began; {script}", **flags)
    lab.wait_until((folder / "began").exists, 20)
    return job


def test_a_job_has_its_nodes_and_pretended_gpus(lab: Lab, tmp_path: Path):
    job = lab.submit(
        f"srun bash -c 'echo $SLURM_PROCID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES >> {tmp_path}/$SLURM_PROCID'",
        nodes=2,
        ntasks_per_node=1,
        gpus_per_node=2,
    )
    assert ends(lab, job) == "CD"
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["0 node1 0,1\n", "1 node2 0,1\n"]
    assert lab.job(job).nodes == "node[1-2]"


def test_a_job_on_a_node_that_loses_power_is_requeued_and_ends(lab: Lab, tmp_path: Path):
    """The node fails, not the command: the other rank sees no closed socket."""
    log = tmp_path / "log"
    work = f"echo $SLURM_RESTART_COUNT/$SLURM_PROCID >> {log}; [ $SLURM_RESTART_COUNT ] || sleep 600"
    job = lab.submit(f"srun --kill-on-bad-exit=1 bash -c '{work}'", nodes=2, ntasks_per_node=1)
    lab.wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2, 20)
    lab.stop_node("node2")
    assert lab.processes("node2") == []
    lab.start_node("node2")
    assert ends(lab, job) == "CD"
    assert lab.job(job).restarts == 1
    assert sorted(log.read_text().split()) == ["/0", "/1", "1/0", "1/1"]


def test_a_daemon_that_comes_back_in_time_costs_its_job_nothing(lab: Lab, tmp_path: Path):
    job = at_work(lab, tmp_path, "sleep 3", nodelist="node2")
    lab.stop_slurmd("node2")
    lab.start_node("node2")
    assert (ends(lab, job), lab.job(job).restarts) == ("CD", 0)


def test_a_job_in_low_is_told_and_makes_way_for_one_in_high(lab: Lab, tmp_path: Path):
    leave = "trap 'scontrol requeue $SLURM_JOB_ID' USR2; [ $SLURM_RESTART_COUNT ] || { sleep 600 & wait; wait; }"
    low = at_work(lab, tmp_path, leave, partition="low", nodes=2, exclusive=True, signal="B:USR2@60", time=10)
    high = lab.submit("true", partition="high", nodes=2, exclusive=True)
    assert ends(lab, high) == "CD"
    assert ends(lab, low) == "CD"
    assert lab.job(low).restarts == 1


def test_jobs_outlive_the_controller(lab: Lab, tmp_path: Path):
    first = at_work(lab, tmp_path, "sleep 4", nodes=2)
    second = lab.submit("true", dependency=f"afterok:{first}")
    lab.stop_controller()
    with pytest.raises(RuntimeError, match="Unable to contact slurm controller"):
        lab.squeue()
    lab.start_controller()
    assert (ends(lab, first), ends(lab, second), lab.job(first).restarts) == ("CD", "CD", 0)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"partition": "short", "time": 5}, "PartitionTimeLimit"),
        ({"partition": "far"}, "Nodes required for job are DOWN, DRAINED or reserved"),
    ],
)
def test_partitions_on_which_a_job_would_wait_for_ever(lab: Lab, flags: dict[str, object], reason: str):
    job = lab.submit("true", **flags)
    lab.wait_until(lambda: lab.job(job).reason.startswith(reason), 10)
    lab.ask("scancel", str(job))
    assert ends(lab, job) == "CA"


def test_accounting_knows_an_ended_job(lab_with_accounting: Lab):
    job = lab_with_accounting.submit("true")
    command = ("sacct", "-X", "-n", "-P", "-o", "State", "-j", str(job))
    # Accounting lags behind the controller: it may still list the job as PENDING.
    assert lab_with_accounting.wait_until(lambda: lab_with_accounting.ask(*command).strip() == "COMPLETED", 30)


def test_a_second_cluster_beside_the_first_leaves_nothing(lab: Lab, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("second")
    other = Lab(folder / "slurm", nodes=1)
    try:
        other.up()
        pids = {process.pid for process in other.processes()}
        other.up()  # it is up already: nothing is started
        assert {process.pid for process in other.processes()} == pids
        job = other.submit(f"setsid sleep 600 & touch {folder}/began; sleep 600")
        other.wait_until((folder / "began").exists, 20)
        assert other.job(job).nodes == "node1"
        there = {"munged", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "slurm_script", "sleep"}
        other.wait_until(lambda: {process.name() for process in other.processes()} == there, 20)
        before = {process.name(): process for process in other.processes()}
    finally:
        other.down()
    assert not [name for name, process in before.items() if lives(process)]
    assert traces(other.folder) == []
    assert lab.is_up()


def test_a_folder_whose_sockets_would_have_too_long_names_is_refused(tmp_path: Path):
    folder = tmp_path / ("x" * 80)
    with pytest.raises(FilmstillError, match="letters long, allowed: 67; set TMPDIR"):
        Lab(folder).up()
    assert not folder.exists()


@pytest.mark.parametrize("lanes", ["-n0", "-n1"])
def test_an_interrupted_session_leaves_nothing(lab: Lab, tmp_path_factory: pytest.TempPathFactory, lanes: str):
    """Run the fixtures of this folder in another pytest, and send it SIGTERM in the middle of a test."""
    folder = tmp_path_factory.mktemp("stop")
    (folder / "conftest.py").symlink_to(HERE / "conftest.py")
    (folder / "test_it.py").write_text(WAITING.format(folder=folder))
    system = folder / "slurm.conf"
    system.symlink_to("before")
    words = (sys.executable, "-m", "pytest", lanes, f"--rootdir={folder}", f"--basetemp={folder}/t", str(folder))
    variables = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent / 'helpers'}:{HERE.parents[1] / 'src'}"}
    session = subprocess.Popen(
        words, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    lab.wait_until((folder / "up").exists, 30)
    assert os.readlink(system) != "before"
    session.send_signal(signal.SIGTERM)
    output, _ = session.communicate(timeout=30)
    assert "KeyboardInterrupt" in output
    assert traces(folder / "t") == []
    assert os.readlink(system) == "before"


def traces(folder: Path) -> list[str]:
    """Names of processes whose command line, environment, directory or open files name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            links = [os.readlink(link) for link in (process / "cwd", *(process / "fd").iterdir())]
            texts = [(process / name).read_text(errors="replace") for name in ("cmdline", "environ")]
            if any(str(folder) in text for text in (*texts, *links)):
                found.append((process / "comm").read_text().strip())
    return found


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path that is used instead of /etc/slurm/slurm.conf."""
    monkeypatch.setattr(lab_host, "SYSTEM_CONF", tmp_path / "slurm" / "slurm.conf")
    (tmp_path / "lab").mkdir()
    return lab_host.SYSTEM_CONF


def test_a_link_that_was_there_before_is_put_back(system: Path, tmp_path: Path):
    other, conf = tmp_path / "other.conf", tmp_path / "lab" / "slurm.conf"
    other.write_text("")
    lab_host.point(other)
    lab_host.point(conf)
    assert os.readlink(system) == str(conf)
    lab_host.unpoint(conf)
    assert os.readlink(system) == str(other)
    lab_host.unpoint(conf)
    assert os.readlink(system) == str(other)
    lab_host.unpoint(other)
    assert os.listdir(system.parent) == []


def test_a_real_cluster_s_slurm_conf_is_left_alone(system: Path, tmp_path: Path):
    system.parent.mkdir()
    system.write_text("ClusterName=real\n")
    with pytest.raises(FilmstillError, match="belongs to a real cluster"):
        lab_host.point(tmp_path / "lab" / "slurm.conf")
    lab_host.unpoint(tmp_path / "lab" / "slurm.conf")
    assert system.read_text() == "ClusterName=real\n"
