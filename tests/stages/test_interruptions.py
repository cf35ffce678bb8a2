"""Stages that are stopped, edited or started twice while they run: nothing is lost, nothing wrong is published.

A training is held after a step while the test acts, so that no outcome depends on the speed of the machine.
"""

import re
import shutil
import signal
from pathlib import Path

import pytest

from repository import dvc
from stage_runs import hold, let_go, only_line, refusal, set_parameter, stage, start, wait_for, wait_until_held

STEP = 5  # of the teacher's 12, after which it is held
TEACHER = "data/teacher/teacher.safetensors"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_saves_and_resumes_to_the_same_bytes(copied: Path, number: int, code: int):
    whole = (copied / TEACHER).read_bytes()
    shutil.rmtree(copied / ".work/teacher")
    hold(copied, STEP)
    running = start(copied, "stages/teacher.py")
    wait_until_held(copied)
    running.send_signal(number)
    let_go(copied)
    output = running.communicate()[0]
    steps = STEP + 2  # the signal is noted after step 5 and answered after step 6; steps count from 0
    assert running.returncode == code, output
    assert only_line(output) == f"teacher: stopped after step {steps}; `dvc repro` resumes from there"
    assert len(list(copied.glob(f".work/teacher/*/checkpoints/step-{steps:07d}"))) == 1
    (copied / "held").unlink()
    assert stage(copied, "teacher").returncode == 0
    assert (copied / TEACHER).read_bytes() == whole
    assert not (copied / "held").exists()  # it did not train step 5 again


def test_a_fan_out_told_to_stop_keeps_its_finished_shards(copied: Path):
    shutil.rmtree(copied / ".work/samples")
    running = start(copied, "stages/samples.py")
    wait_for(lambda: any("Finished jobid" in log.read_text() for log in copied.glob(".work/samples/*/snakemake.log")))
    (work,) = copied.glob(".work/samples/*")
    # A shard is finished when Snakemake's log says so, not when it is written.
    log = (work / "snakemake.log").read_text()
    path_of = {job: work / path for path, job in re.findall(r"output: (\S+)\n +log: .*\n +jobid: (\d+)", log)}
    finished = {path_of[job]: path_of[job].stat().st_mtime for job in re.findall(r"Finished jobid: (\d+)", log)}
    running.send_signal(signal.SIGTERM)
    output = running.communicate()[0]
    assert running.returncode == 143, output
    assert only_line(output) == "samples: stopped; finished shards are kept, `dvc repro` makes the rest"
    assert stage(copied, "samples").returncode == 0
    assert finished and {path: path.stat().st_mtime for path in finished} == finished


def test_parameters_edited_and_put_back_while_a_stage_imports_change_nothing(copied: Path):
    """It computes with the values that its key was made of, not with what params.yaml says when torch is imported."""
    whole, params = (copied / TEACHER).read_bytes(), (copied / "params.yaml").read_text()
    shutil.rmtree(copied / ".work/teacher")
    hold(copied, STEP)
    running = start(copied, "stages/teacher.py")
    wait_for(lambda: list(copied.glob(".work/teacher/*/inputs.json")))
    set_parameter(copied, "teacher.muon_lr", 0.05)
    wait_until_held(copied)
    (copied / "params.yaml").write_text(params)
    let_go(copied)
    output = running.communicate()[0]
    assert running.returncode == 0, output
    assert (copied / TEACHER).read_bytes() == whole


def test_an_input_edited_and_put_back_while_a_stage_runs_is_not_published(copied: Path):
    """Its hash is the same again, which dvc.lock would record, but the stage has read other bytes."""
    before, script = (copied / "data/prompts/train.parquet").read_bytes(), copied / "stages/prompts.py"
    edit = """
def filter_prompts(*given, own=filter_prompts):
    from pathlib import Path
    raw = Path("data/prompts/raw.csv")
    whole = raw.read_bytes()
    raw.write_bytes(b"".join(whole.splitlines(keepends=True)[:1500]))
    counts = own(*given)
    raw.write_bytes(whole)
    return counts


def main("""
    script.write_text(script.read_text().replace("\ndef main(", edit, 1))
    line = refusal(stage(copied, "prompts"))
    (work,) = (path.parent for path in copied.glob(".work/prompts/*/out") if not (path.parent / "done.json").exists())
    assert line == (
        "data/prompts/raw.csv: was written while the stage ran; not published. Run `dvc repro` again, and first remove "
        f"{work.relative_to(copied)} if the file was another in between"
    )
    assert (copied / "data/prompts/train.parquet").read_bytes() == before


def test_parameters_edited_while_a_stage_runs_are_not_published(copied: Path):
    before = (copied / TEACHER).read_bytes()
    set_parameter(copied, "teacher.steps", 14)
    hold(copied, STEP)
    running = start(copied, "stages/teacher.py")
    wait_until_held(copied)
    set_parameter(copied, "teacher.steps", 12)
    let_go(copied)
    output = running.communicate()[0]
    assert running.returncode == 2, output
    (work,) = (path.parent for path in copied.glob(".work/teacher/*/checkpoints") if (path / "step-0000014").exists())
    assert only_line(output) == (
        "teacher: its sources or params.yaml changed while it ran, so DVC would record inputs that did not make this "
        f"result; not published, the work is kept in {work.relative_to(copied)}: run `dvc repro` again"
    )
    assert (copied / TEACHER).read_bytes() == before


def test_parameters_edited_while_shards_are_made_spoil_none(copied: Path):
    """Every shard's process reads params.yaml itself: none may be made with other values than its work folder's."""
    shutil.rmtree(copied / ".work/ode_pairs")
    before = (copied / "data/ode_pairs/pairs-0000.safetensors").read_bytes()
    parameters = (copied / "params.yaml").read_text()
    running = start(copied, "stages/ode_pairs.py")
    wait_for(lambda: list(copied.glob(".work/ode_pairs/*/logs/pairs-*.log")))
    set_parameter(copied, "ode_pairs.guidance_scale", 1.0)
    output = running.communicate()[0]
    assert running.returncode == 2, output
    line = (
        r"ode_pairs: shard (pairs-000\d) failed: ode_pairs: its sources or params\.yaml changed meanwhile; "
        r"run `dvc repro` again \(log: \.work/ode_pairs/\w{16}/logs/\1\.log\); finished shards are kept"
    )
    assert re.fullmatch(line, only_line(output))
    (copied / "params.yaml").write_text(parameters)
    assert stage(copied, "ode_pairs").returncode == 0
    assert (copied / "data/ode_pairs/pairs-0000.safetensors").read_bytes() == before


def test_a_second_repro_is_refused_while_the_first_one_runs(copied: Path):
    set_parameter(copied, "teacher.steps", 13)
    hold(copied, STEP)
    first = start(copied, "-m", "dvc", "repro", "teacher")
    wait_until_held(copied)
    refused = dvc(copied, "repro", "teacher", check=False)
    let_go(copied)
    output = first.communicate()[0]
    assert refused.returncode == 255, refused.stderr
    busy = r"ERROR: failed to reproduce 'provided': '\S+/data/provided\.txt' is busy, it is being blocked by:\n +"
    blocked = re.match(busy + r"\(PID (\d+)\)", refused.stderr)
    assert blocked and int(blocked[1]) == first.pid, refused.stderr
    assert first.returncode == 0, output
    assert dvc(copied, "repro", "teacher").stdout.endswith("Data and pipelines are up to date.\n")


def test_the_same_stage_started_twice_is_made_once(copied: Path):
    whole = (copied / TEACHER).read_bytes()
    shutil.rmtree(copied / ".work/teacher")
    hold(copied, STEP)
    first = start(copied, "stages/teacher.py")
    wait_until_held(copied)
    (work,) = (copied / ".work/teacher").iterdir()
    second = start(copied, "stages/teacher.py")
    waiting = second.stdout.readline()
    let_go(copied)
    outputs = first.communicate()[0], second.communicate()[0]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert waiting == f"teacher: another run of the same key holds {work.relative_to(copied)}; waiting for it\n"
    assert outputs[1] == f"teacher: already made, in {work.relative_to(copied)}\n"
    assert (copied / TEACHER).read_bytes() == whole
