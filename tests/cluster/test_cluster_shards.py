"""Jobs of shards, without a cluster: final states are remembered, no shard is made twice, flags are passed on."""

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from filmstill.cluster import shards, slurm, submit_shards
from filmstill.cluster.config import Cluster, Resources
from filmstill.cluster.follow import follow
from filmstill.cluster.submit import Submission
from filmstill.cluster.submit_shards import job_logs, latest_jobs
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.progress import progress

JOB = slurm.QueuedJob("7", "ode_pairs-0-abcd_1", "RUNNING", "None", None, 0, "node1", "/repository")


def knows(monkeypatch: pytest.MonkeyPatch, *jobs: slurm.QueuedJob) -> None:
    """Make SLURM list these jobs."""
    monkeypatch.setattr(slurm, "queued", lambda: list(jobs))


def test_the_end_of_a_job_is_remembered_when_slurm_has_forgotten_it(monkeypatch):
    seen: shards.SeenJobs = {}
    other = replace(JOB, id="8")
    stranger = replace(JOB, id="6", state="FAILED")  # of an earlier run, to be ignored
    for listed in ([JOB, other, stranger], [replace(JOB, state="CANCELLED"), other], [other]):
        knows(monkeypatch, *listed)
        live = shards._live_jobs("ode_pairs-0-abcd", seen)
    assert [job.id for job in live] == ["8"] and seen.keys() == {"7", "8"}
    with pytest.raises(FilmstillError, match=r"1 of its jobs were cancelled \(7 first\)"):
        shards._stop_if_cancelled("ode_pairs", seen)


def test_the_end_of_a_job_last_seen_alive_is_asked_for(monkeypatch):
    """The queue forgot it between two queries: only accounting may know its final state."""
    over = replace(JOB, state="TIMEOUT")
    monkeypatch.setattr(slurm, "find", {"7": over}.get)
    assert shards._final_state("7", {"7": JOB}) == shards._final_state("7", {"7": None}) == over
    assert shards._final_state("7", {"7": replace(JOB, state="FAILED")}) == replace(JOB, state="FAILED")
    assert shards._final_state(None, {}) is None


def test_a_job_that_another_process_submitted_speaks_for_its_shard(tmp_path: Path):
    """Where that job failed, the process that waits for it does not submit the shard again."""
    for job, wildcard in (("9", "0001"), ("10", "0001"), ("11", "0002"), ("12", "0001")):
        (job_logs(tmp_path) / "rule" / wildcard).mkdir(parents=True, exist_ok=True)
        (job_logs(tmp_path) / "rule" / wildcard / f"{job}.log").touch()
    jobs = latest_jobs(tmp_path, ["pairs-0001", "pairs-0003"], ["9", "10", "11", "99"])
    assert jobs == {"pairs-0001": "10"}
    failed = replace(JOB, id="10", state="FAILED")
    with pytest.raises(FilmstillError, match=r"ode_pairs: shard pairs-0001 failed: job 10 printed nothing"):
        shards._stop_if_failed("ode_pairs", tmp_path, "pairs-0001", jobs["pairs-0001"], failed, 0, "")


def test_no_shard_is_made_here_while_jobs_make_them(tmp_path: Path, monkeypatch):
    work = tmp_path / ".work/ode_pairs/0123"
    name = shards._job_name_prefix("ode_pairs", work)
    monkeypatch.setattr(slurm, "available", lambda: True)
    knows(monkeypatch, replace(JOB, name=f"{name}_1"), JOB)
    with pytest.raises(FilmstillError, match=r"ode_pairs: 1 jobs are at work in .*; `python -m filmstill cancel"):
        shards.refuse_beside_jobs("ode_pairs", work)
    knows(monkeypatch, replace(JOB, name=f"{name}_1", state="COMPLETED"))
    shards.refuse_beside_jobs("ode_pairs", work)


def test_no_shard_is_made_where_nobody_can_be_asked_for_its_job(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(slurm, "available", lambda: False)
    with pytest.raises(FilmstillError, match=r"jobs may be at work in .*\(its commands are not on this machine"):
        shards.refuse_beside_jobs("ode_pairs", tmp_path)


@pytest.mark.parametrize(("memory_gb", "requests"), [(4, "mem_mb=4096"), (None, "mem_mb=0")])
def test_no_memory_asked_for_is_said_or_snakemake_asks_for_some(memory_gb: int | None, requests: str):
    assert requests in submit_shards._default_resources(Resources(memory_gb=memory_gb))


def test_snakemake_guesses_no_account(tmp_path: Path):
    sacct = shutil.which("sacct", path=submit_shards._path_without_sacct(tmp_path))
    assert sacct is not None and subprocess.run([sacct, "-nu", "me"], check=False).returncode == 1


def test_a_shard_s_job_that_loses_its_nodes_for_ever_is_cancelled(tmp_path: Path, monkeypatch):
    cancelled: list[str] = []
    monkeypatch.setattr(slurm, "cancel", cancelled.append)
    knows(monkeypatch, replace(JOB, restarts=3))
    cluster = Cluster(max_requeues=2)
    with progress("ode_pairs", 1) as bar, pytest.raises(FilmstillError, match="job 7 lost its node more often than"):
        shards._wait_for_jobs(bar, "ode_pairs", "ode_pairs-0-abcd", tmp_path, cluster, {}, None)
    assert cancelled == ["7"]


@pytest.mark.parametrize("value", ["H100-Jan", "two words-J", "a'b"])
def test_a_value_that_looks_like_a_flag_to_the_plugin_reaches_sbatch_as_it_is(value: str):
    flag = submit_shards._flag("reservation", value)
    validate_slurm_extra(SimpleNamespace(resources=SimpleNamespace(slurm_extra=flag)))
    assert shlex.split(flag) == [f"--reservation={value}"]


def test_jobs_of_shards_are_this_repository_s_wherever_its_work_lies(tmp_path: Path, monkeypatch):
    """Their working directory is the resolved work folder. A clone may have the same tag."""
    root, scratch = tmp_path / "repository", tmp_path / "scratch"
    root.mkdir()
    (scratch / "ode_pairs/0123").mkdir(parents=True)
    (root / ".work").symlink_to(scratch)
    name = f"{shards._job_name_prefix('ode_pairs', Path('.work/ode_pairs/0123'))}_1"
    monkeypatch.setattr(slurm, "tag", lambda root: slurm.parse_name(name)[2])
    job = replace(JOB, name=name, folder=str(scratch / "ode_pairs/0123"))
    training = replace(job, id="8", folder=str(root))
    (tmp_path / "clone").mkdir()
    knows(monkeypatch, job, training, replace(job, id="9", folder=str(tmp_path / "clone")))
    assert slurm.live_jobs(root) == [job, training]


def test_a_cancelled_job_that_is_still_ending_is_waited_for_and_does_not_count(monkeypatch):
    """As after `filmstill cancel && dvc repro`; a job that is requeued is ending for a while too, and counts then."""
    seen: shards.SeenJobs = {}
    ending = replace(JOB, state="COMPLETING")
    knows(monkeypatch, ending)
    assert shards._live_jobs("ode_pairs-0-abcd", seen) == [ending] and seen == {}
    for state, counts in (("CANCELLED", []), ("PENDING", ["7"])):
        knows(monkeypatch, replace(JOB, state=state))
        shards._live_jobs("ode_pairs-0-abcd", seen)
        assert list(seen) == counts


def test_jobs_whose_checkout_was_removed_are_cancelled(tmp_path: Path, monkeypatch):
    cancelled: list[str] = []
    monkeypatch.setattr(slurm, "cancel", lambda *jobs: cancelled.extend(jobs))
    knows(monkeypatch, JOB, replace(JOB, id="8", name="ode_pairs-1-abcd_1"))
    removed = tmp_path / ".dvc/tmp/exps/standalone/tmpremoved"
    for checkout in (None, tmp_path, tmp_path / "not mounted", removed):
        if checkout is not None:
            (tmp_path / submit_shards.CHECKOUT).write_text(str(checkout))
        shards._cancel_without_checkout("ode_pairs-0-abcd", tmp_path)
        assert cancelled == (["7"] if checkout == removed else [])


CANCELLED = "cancelled, because DVC removes the experiment's folder; what is saved is kept, and an experiment with"


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    """A work folder of the main checkout, seen from an experiment's folder, in which the test runs."""
    experiment = tmp_path / ".dvc/tmp/exps/tmp1"
    experiment.mkdir(parents=True)
    (tmp_path / ".work/ode_pairs/0123").mkdir(parents=True)
    (experiment / ".work").symlink_to(tmp_path / ".work")
    monkeypatch.chdir(experiment)
    return Path(".work/ode_pairs/0123")


def stop(*_: object) -> None:
    raise Interrupted("stopped", signal.SIGTERM)


@pytest.fixture
def stopped(monkeypatch) -> Callable[[Callable[[], object]], str]:
    """A function that makes a stage wait for its jobs and stops it; returns the line that it prints."""
    monkeypatch.setattr(shards, "_wait_for_jobs", stop)
    monkeypatch.setattr("filmstill.cluster.follow._wait_until_over", stop)

    def line(wait: Callable[[], object]) -> str:
        with pytest.raises(Interrupted) as error:
            wait()
        return str(error.value)

    return line


@pytest.mark.parametrize(
    ("checkout", "fails", "ids", "then"),
    [
        ("here", None, ["7"], f"its jobs are {CANCELLED}"),
        ("here", slurm.Unreachable("timed out"), [], "its jobs are perhaps not cancelled (timed out), and cannot go"),
        ("another", None, [], "its jobs go on, `dvc repro` waits for them again"),
        ("", None, [], "its jobs go on"),
        (None, None, [], "its jobs go on"),
    ],
)
def test_the_shards_of_a_killed_experiment_are_cancelled_or_the_line_says_why_not(
    work: Path, monkeypatch, stopped, checkout: str | None, fails: Exception | None, ids: list[str], then: str
):
    """The working directory of a shard's job is its work folder, which other checkouts share."""
    name = f"{shards._job_name_prefix('ode_pairs', work)}_1"
    job = replace(JOB, name=name, folder=str(work.resolve()))
    knows(monkeypatch, job, replace(job, id="8", state="COMPLETED"), replace(job, id="9", name="distill-0123-abcd_1"))
    if checkout is not None:
        text = {"here": str(Path.cwd()), "another": str(Path.cwd().parents[3])}.get(checkout, checkout)
        (work / submit_shards.CHECKOUT).write_text(text)
    cancelled: list[str] = []

    def cancel(*jobs: str) -> None:
        if fails:
            raise fails
        cancelled.extend(jobs)

    monkeypatch.setattr(slurm, "cancel", cancel)
    line = stopped(lambda: shards.make_as_jobs("ode_pairs", work, ["pairs-0000"], 1, "pair", Cluster()))
    assert line.startswith(f"ode_pairs: stopped; {then}") and cancelled == ids
    if fails:
        assert line.endswith("; run `python -m filmstill cancel ode_pairs`")


@pytest.mark.parametrize(
    ("folder", "ids", "then"),
    [(".", ["7"], f"is {CANCELLED}"), ("../../../..", [], "goes on without this process; `dvc repro` attaches to it")],
)
def test_the_job_of_a_killed_experiment_is_cancelled_unless_another_checkout_submitted_it(
    work: Path, monkeypatch, stopped, folder: str, ids: list[str], then: str
):
    job = replace(JOB, name="distill-0123.abcd", folder=str(Path(folder).resolve()))
    monkeypatch.setattr(slurm, "queued", lambda _name: [job])
    cancelled: list[str] = []
    monkeypatch.setattr(slurm, "cancel", cancelled.append)
    submission = Submission(job.name, job.id, str(work / "jobs/0001"))
    assert re.match(f"distill: job 7 {re.escape(then)}", stopped(lambda: follow("distill", submission, 1.0)))
    assert cancelled == ids
