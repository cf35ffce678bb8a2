"""`dvc repro` on SLURM from end to end, and the disturbances of a cluster while it trains.

One repository with one training of Self-Forcing on two nodes. Every test repeats the training from the beginning,
disturbs it, and compares the bytes of the student with those of the undisturbed run.
"""

import re
import shutil
import signal
import subprocess

import pytest

from runs import INIT, ONLY, STUDENT, TEACHER, Repository


def test_shards_and_trainings_were_jobs(made: Repository):
    names = (made.folder / "accounted.txt").read_text().splitlines()
    output = (made.folder / "made.log").read_text()
    for stage, nodes in (("teacher", "node[12]"), ("ode_init", r"node\[1-2\]"), ("distill", r"node\[1-2\]")):
        key = made.work(stage).name
        assert any(name.startswith(f"{stage}-{key}.") for name in names)
        assert re.search(rf"^{stage}: job \d+ running on {nodes}$", output, re.M)
    assert sum(name.startswith("ode_pairs-") for name in names) >= 1
    assert sum(name.startswith("samples-") for name in names) >= 1
    figures = (made.work("distill") / "telemetry.json").read_text()
    assert '"world_size": 2' in figures and "communication" in figures


@pytest.mark.parametrize(("stage", "weights"), [("teacher", TEACHER), ("ode_init", INIT)])
def test_a_training_made_again_is_the_same_bytes(made: Repository, stage: str, weights: str):
    made.configure()
    before = made.digest(weights)
    shutil.rmtree(made.folder / ".work" / stage)
    assert made.repro("--force", "--single-item", stage).ends() == 0
    assert made.digest(weights) == before and made.starts(stage) == 1


def test_one_run_survives_five_failures(again: Repository):
    """One `dvc repro` survives a preemption, a killed rank, a requeue by the user, a lost slurmd, a lost controller."""
    again.configure(partition="low")
    repro = again.repro(*ONLY)
    repro.until_step("distill", 1)
    again.lab.submit("sleep 1", partition="high", nodes=2, exclusive=True)
    repro.until(lambda: "requeued once" in repro.output)
    assert (again.work("distill") / "jobs/0001/clean-exit-0").exists()  # it checkpointed and requeued
    again.trains_on(repro)
    again.process("1").kill()
    repro.until(lambda: "submitting it again" in repro.output)
    again.trains_on(repro)
    again.lab.ask("scontrol", "requeue", again.jobs()[0])
    again.starts_again(repro, 1)
    (job,) = again.jobs()
    with again.frozen():  # SLURM gives up the node, whose rank still exists, and requeues the job
        again.lab.stop_slurmd("node2")
        again.lab.wait_until(lambda: again.lab.job(int(job)).state == "PD", 60)
    again.lab.start_node("node2")
    again.starts_again(repro, 2)
    with again.frozen():
        again.lab.stop_controller()
        repro.until(lambda: "controller does not answer" in repro.output)
    again.lab.start_controller()
    assert repro.ends() == 0
    assert again.starts("distill") == 2


def test_the_next_run_attaches_after_the_waiting_process_dies(again: Repository):
    """The waiting process is killed and its record lost; the next one is stopped by SIGTERM; then the job is cancelled
    and its last checkpoint damaged, and the last run resumes from the checkpoint before it."""
    repro = again.repro(*ONLY)
    repro.until_step("distill", 1)
    with again.frozen():
        repro.kill()
        (again.work("distill") / "job.json").unlink()
        (job,) = again.jobs()
        repro = again.repro(*ONLY)
        repro.until(lambda: f"attached to job {job}" in repro.output)
    again.trains_on(repro)
    with again.frozen():
        repro.stage_process().send_signal(signal.SIGTERM)
        assert repro.process.wait(30) != 0
        assert f"job {job} goes on without this process; `dvc repro` attaches to it" in repro.output
        assert again.jobs() == [job] and again.starts("distill") == 1
        repro = again.repro(*ONLY)
        repro.until(lambda: f"attached to job {job}" in repro.output)
    again.trains_on(repro)
    cancelled = again.filmstill("cancel", "distill").stdout
    assert f"cancelled job {job} of distill" in cancelled and "resumes from the last checkpoint" in cancelled
    assert repro.ends() != 0
    assert f"job {job} was cancelled; `dvc repro` resumes from the last checkpoint" in repro.output
    assert re.search(rf"{job} +cancelled ", again.filmstill("jobs").stdout)
    newest = max((again.work("distill") / "checkpoints").glob("step-*"))
    part = max(newest.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-1])
    repro = again.repro(*ONLY)
    assert repro.ends() == 0
    assert f"{newest.name}/{part.name}: damaged" in repro.output and "the checkpoint before it" in repro.output
    assert again.starts("distill") == 2


def test_a_full_scratch_then_a_source_edited_meanwhile(again: Repository):
    """Neither run publishes its result. The work is kept, and published once the sources are restored."""
    work, source = again.folder / ".work" / "distill", again.folder / "src/filmstill/objectives/dmd.py"
    before = source.read_text()
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(work)], check=True)
    try:
        repro = again.repro(*ONLY)
        assert repro.ends() != 0
        assert "disk full while writing" in repro.output and "Traceback" not in repro.output
        subprocess.run(["mount", "-o", "remount,size=200m", str(work)], check=True)
        repro = again.repro(*ONLY)
        repro.until_step("distill", 2)
        source.write_text(before + "\n# another\n")
        assert repro.ends() != 0
        assert "changed" in repro.output and not (again.folder / STUDENT).exists()
        source.write_text(before)
        assert again.repro(*ONLY).ends() == 0
    finally:
        source.write_text(before)
        subprocess.run(["umount", str(work)], check=True)
