"""Queries about jobs, on a real SLURM."""

import time
from pathlib import Path

import pytest

from filmstill.cluster import slurm
from filmstill.errors import FilmstillError
from lab import Lab


def state(job: int) -> str:
    found = slurm.find(str(job))
    return found.state if found else "unknown"


def test_a_job_is_found_by_name_and_id_until_it_is_over(lab: Lab, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = slurm.job_name("distill", "0123456789abcdef", tmp_path)
    job = lab.submit("sleep 60", job_name=name)
    lab.wait_until(lambda: state(job) == "RUNNING", 20)
    [found] = slurm.queued(name)
    assert (found.id, found.name, found.nodes, found.restarts) == (str(job), name, "node1", 0)
    assert found.alive and found.folder == str(tmp_path) and found.begins is not None
    slurm.requeue(found.id)
    lab.wait_until(lambda: lab.job(job).restarts == 1 and state(job) == "RUNNING", 40)
    assert slurm.queued(name)[0].restarts == 1
    slurm.cancel(found.id)
    lab.wait_until(lambda: state(job) == "CANCELLED", 20)
    assert not slurm.queued(name)[0].alive
    slurm.cancel(found.id)  # no effect on a job that is over


def test_another_name_is_another_job(lab: Lab, tmp_path: Path):
    name = slurm.job_name("distill", "f" * 16, tmp_path)
    assert slurm.queued(name) == []
    assert slurm.find("999999") is None
    with pytest.raises(FilmstillError, match="scontrol: Invalid job id specified for job 999999"):
        slurm.requeue("999999")


def test_a_name_with_every_sign_is_read_whole(lab: Lab):
    name = "a|b c;d: é" + "x" * 80
    job = lab.submit("true", job_name=name)
    assert [found.id for found in slurm.queued() if found.name == name] == [str(job)]


def test_a_user_s_own_options_hide_no_job(lab: Lab, monkeypatch):
    job = lab.submit("sleep 60", partition="low", begin="now+1hour")
    for variable, value in {"SQUEUE_PARTITION": "main", "SQUEUE_FORMAT": "%i", "SLURM_TIME_FORMAT": "%H"}.items():
        monkeypatch.setenv(variable, value)
    [found] = [found for found in slurm.queued() if found.id == str(job)]
    assert (found.state, found.reason, found.alive) == ("PENDING", "BeginTime", True)
    begins = time.mktime(time.strptime(found.begins or "", "%Y-%m-%dT%H:%M:%S"))
    assert abs(begins - time.time() - 3600) < 60
    slurm.cancel(found.id)


def test_silence_is_not_gone(lab: Lab, tmp_path: Path, monkeypatch):
    """No process listens on the controller's port."""
    conf = tmp_path / "slurm.conf"
    lines = [line for line in lab.conf.read_text().splitlines() if not line.startswith("SlurmctldPort=")]
    conf.write_text("\n".join([*lines, "SlurmctldPort=1", "MessageTimeout=2", ""]))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    for ask in (lambda: slurm.find("1"), slurm.queued, lambda: slurm.requeue("1"), lambda: slurm.cancel("1")):
        with pytest.raises(slurm.Unreachable):
            ask()


def test_what_the_controller_has_forgotten_accounting_knows(lab_with_accounting: Lab, monkeypatch):
    def forgotten(*_: str) -> list[slurm.QueuedJob]:
        raise FilmstillError("squeue: Invalid job id specified")

    job = lab_with_accounting.submit("sleep 600", job_name="a|b c", time=1)
    lab_with_accounting.wait_until(lambda: lab_with_accounting.job(job).state == "R", 30)
    lab_with_accounting.ask("scancel", str(job))
    monkeypatch.setenv("SLURM_CONF", str(lab_with_accounting.conf))
    monkeypatch.setattr(slurm, "_squeue", forgotten)

    def job_in_accounting() -> slurm.QueuedJob | None:
        """Accounting lags behind: at first it has the job's end without its start and its name."""
        job_there = slurm.find(str(job))
        return job_there if job_there and job_there.name != "allocation" else None

    found = lab_with_accounting.wait_until(job_in_accounting, 30)
    assert (found.id, found.name, found.state, found.alive) == (str(job), "a|b c", "CANCELLED", False)
    assert slurm.find("999999") is None


def test_names_of_other_jobs_are_not_ours():
    name = slurm.job_name("ode_init", "0123456789abcdef", Path("/somewhere"))
    assert slurm.parse_name(name) == ("ode_init", "0123456789abcdef", slurm.tag(Path("/somewhere")))
    assert slurm.tag(Path("/somewhere")) != slurm.tag(Path("/elsewhere")) and len(slurm.tag(Path("/somewhere"))) == 8
    for other in ("wrap", "snakejob.pairs.4.sh", f"{name}.1", "ode_init-0123456789abcdef"):
        assert slurm.parse_name(other) is None
