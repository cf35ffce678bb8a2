"""What a user can get wrong or a machine can break: one clear line, the right exit code, nothing lost."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from filmstill.__main__ import main
from repository import environment, run

STEPS_OF_TEACHER = "steps: 12"


def stage(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return run("python", f"stages/{name}.py", cwd=folder, check=False)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def change(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text()
    assert old in text
    (folder / "params.yaml").write_text(text.replace(old, new, 1))


def refusal(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line of a refused run."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("filmstill: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("critic_lr: 0.0002", "critic_lrr: 0.0002", "critic_lrr"),
        ("critic_lr: 0.0002", "critic_lr: fast", "critic_lr"),
        ("critic_lr: 0.0002", "critic_lr: -1", "distill.critic_lr: is -1.0, allowed: a positive number"),
        ("frames: 12", "frames: 13", "world.frames: is 13, allowed: a multiple of student.block_frames (3)"),
        ("window_frames: null", "window_frames: 2", "student.window_frames: is 2"),
        (
            "guidance_scale: 3.0\n  checkpoint",
            "guidance_scale: .nan\n  checkpoint",
            "distill.guidance_scale: is nan, allowed: a finite number",
        ),
        ("critic_lr: 0.0002", "critic_lr: ${nothing}", "Interpolation key 'nothing' not found"),
        ("seed: 0", "seed: 9223372036854775808", "seed: is 9223372036854775808, allowed: an integer in [0, 2**63)"),
        ("seed: 0", "seed: zero", "seed: is 'zero', allowed: an integer in [0, 2**63)"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(copied: Path, old: str, new: str, says: str):
    change(copied, old, new)
    assert says in refusal(stage(copied, "distill"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("embeded", "unknown, there are: embedded, smoke"),
        ("embedded distil.lr=1", "distil: no such key"),
        (
            "embedded student.denoising_steps=3",
            "student.denoising_steps: is 3, allowed: a divisor of ode_pairs.nodes (4)",
        ),
        ("embedded distill.batch=0", "embedded: distill.batch: is 0, allowed: a positive"),
        ("embedded distill.gate.prompts=0", "embedded: distill.gate.prompts: is 0, allowed: a positive"),
        ("embedded distill.gate=3", "embedded: distill.gate: is 3, allowed: a mapping of prompts,"),
        ("embedded samples.long_window_frames=2", "long_window_frames: is 2, allowed: at least student's sink + block"),
        ("embedded distill.lr", "must be key=value"),
        ("embedded distill=${nothing}", "embedded: distill: Interpolation key 'nothing' not found"),
        ("embedded distill.gate.prompts=???", "embedded: distill.gate.prompts: Missing mandatory value"),
    ],
)
def test_profile_refuses_what_no_stage_could_run(capsys, monkeypatch, copied: Path, words: str, says: str):
    monkeypatch.chdir(copied)
    before = Path("params.yaml").read_text()
    assert main(["profile", *words.split()]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert Path("params.yaml").read_text() == before


def test_check_misses_no_value(capsys, monkeypatch, copied: Path):
    monkeypatch.chdir(copied)
    assert main(["check"]) == 0
    change(copied, "seed: 0\n", "")
    assert main(["check"]) == 2
    assert "params.yaml: 'seed' is missing" in capsys.readouterr().err


def test_student_steps_that_are_not_the_pairs_nodes_are_refused(copied: Path):
    change(copied, "  steps: 4\n  block_frames", "  steps: 3\n  block_frames")
    line = refusal(stage(copied, "ode_init"))
    assert "student.denoising_steps: is 3 (timesteps 1000, 857.143, 600)" in line
    assert "the pairs hold timesteps 1000, 900, 750, 500" in line


def test_pairs_of_another_schedule_are_refused(copied: Path):
    change(copied, "shift: 3.0", "shift: 5.0")
    assert "the pairs hold timesteps 1000, 900, 750, 500" in refusal(stage(copied, "ode_init"))


@pytest.mark.parametrize("name", ["data/teacher/teacher.safetensors", "data/ode_pairs/pairs-0001.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "pickle"])
def test_a_damaged_artifact_is_refused_by_name(copied: Path, name: str, damage: str):
    path = copied / name
    content = bytearray(path.read_bytes())
    if damage == "pickle":
        torch.save({"x": torch.zeros(2)}, path)
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[-100] ^= 1
        path.write_bytes(content)
    shutil.rmtree(copied / ".work/ode_init")
    line = refusal(stage(copied, "ode_init"))
    assert name in line
    assert {"flip": "damaged", "truncate": "not a whole safetensors file", "pickle": "a pickle"}[damage] in line


def test_a_damaged_shard_in_the_work_folder_is_made_again(copied: Path):
    (work,) = (copied / ".work/ode_pairs").iterdir()
    shard = work / "shards/pairs-0001.safetensors"
    whole = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(whole[:1000])
    (work / "done.json").unlink()
    shutil.rmtree(work / "out")
    done = stage(copied, "ode_pairs")
    assert done.returncode == 0, done.stderr
    assert "it is made again" in done.stderr
    assert (copied / "data/ode_pairs/pairs-0001.safetensors").read_bytes() == whole


def test_weights_of_other_sizes_are_refused(copied: Path):
    change(copied, "dim: 48", "dim: 64")
    assert "a network of other sizes: dim 48 (params.yaml: 64)" in refusal(stage(copied, "ode_init"))


def test_a_work_folder_that_cannot_be_written_is_one_line(copied: Path):
    shutil.rmtree(copied / ".work")
    (copied / ".work").write_text("in the way")
    assert ".work" in refusal(stage(copied, "teacher"))


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(copied: Path):
    whole = (copied / "data/teacher/teacher.safetensors").read_bytes()
    shutil.rmtree(copied / ".work")
    (copied / ".work").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(copied / ".work")], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    try:
        assert "disk full" in refusal(stage(copied, "teacher"))
        subprocess.run(["mount", "-o", "remount,size=200m", str(copied / ".work")], check=True)
        assert stage(copied, "teacher").returncode == 0
    finally:
        subprocess.run(["umount", str(copied / ".work")], check=True)
    assert (copied / "data/teacher/teacher.safetensors").read_bytes() == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop_it_saves_and_goes_on_to_the_same_bytes(copied: Path, number: int, code: int):
    whole = (copied / "data/teacher/teacher.safetensors").read_bytes()
    shutil.rmtree(copied / ".work/teacher")
    running = start(copied, sys.executable, "stages/teacher.py")
    wait_for(lambda: list(copied.glob(".work/teacher/*/checkpoints/step-*")))
    running.send_signal(number)
    said = running.communicate()[0]
    if running.returncode != 0:  # a quick machine may have finished first
        assert running.returncode == code and "goes on from there" in said and "Traceback" not in said
    assert stage(copied, "teacher").returncode == 0
    assert (copied / "data/teacher/teacher.safetensors").read_bytes() == whole


@pytest.mark.parametrize("name", ["ode_pairs", "samples"])
def test_a_fan_out_checks_what_its_shards_read_before_one_starts(copied: Path, name: str):
    shutil.rmtree(copied / ".work" / name)
    change(copied, "placement: cpu", "placement: attic")
    assert "params.yaml: text.placement: is 'attic', allowed: one of" in refusal(stage(copied, name))
    assert not list(copied.glob(f".work/{name}/*/logs"))


def test_a_fan_out_told_to_stop_keeps_its_finished_shards(copied: Path):
    shutil.rmtree(copied / ".work/samples")
    running = start(copied, sys.executable, "stages/samples.py")
    wait_for(lambda: any("Finished jobid" in log.read_text() for log in copied.glob(".work/samples/*/snakemake.log")))
    work = next(copied.glob(".work/samples/*"))
    told = (work / "snakemake.log").read_text()  # a shard is finished when Snakemake says so, not when it is written
    path_of = {job: work / path for path, job in re.findall(r"output: (\S+)\n +log: .*\n +jobid: (\d+)", told)}
    finished = {path_of[job]: path_of[job].stat().st_mtime for job in re.findall(r"Finished jobid: (\d+)", told)}
    running.send_signal(signal.SIGTERM)
    said = running.communicate()[0]
    assert running.returncode == 143 and "finished shards are kept" in said
    assert stage(copied, "samples").returncode == 0
    assert finished and {path: path.stat().st_mtime for path in finished} == finished


def test_parameters_edited_while_a_stage_runs_are_not_published(copied: Path):
    change(copied, STEPS_OF_TEACHER, "steps: 14")
    before = (copied / "data/teacher/teacher.safetensors").read_bytes()
    running = start(copied, sys.executable, "stages/teacher.py")
    wait_for(lambda: len(list(copied.glob(".work/teacher/*/checkpoints/*"))) > 2)
    change(copied, "steps: 14", STEPS_OF_TEACHER)
    said = running.communicate()[0]
    assert running.returncode == 2 and "changed while it ran" in said
    assert (copied / "data/teacher/teacher.safetensors").read_bytes() == before


def test_parameters_edited_while_shards_are_made_spoil_none(copied: Path):
    """Every shard's process reads params.yaml for itself: none may be made with other values than its folder's."""
    shutil.rmtree(copied / ".work/ode_pairs")
    before = (copied / "data/ode_pairs/pairs-0000.safetensors").read_bytes()
    running = start(copied, sys.executable, "stages/ode_pairs.py")
    wait_for(lambda: list(copied.glob(".work/ode_pairs/*/logs/pairs-*.log")))
    change(copied, "guidance_scale: 3.0\n  nodes", "guidance_scale: 1.0\n  nodes")
    said = running.communicate()[0]
    assert running.returncode == 2 and "sources or params.yaml changed meanwhile" in said, said
    change(copied, "guidance_scale: 1.0\n  nodes", "guidance_scale: 3.0\n  nodes")
    assert stage(copied, "ode_pairs").returncode == 0
    assert (copied / "data/ode_pairs/pairs-0000.safetensors").read_bytes() == before


def test_two_repros_at_once_do_not_disturb_each_other(copied: Path):
    change(copied, STEPS_OF_TEACHER, "steps: 13")
    both = [start(copied, sys.executable, "-m", "dvc", "repro", "teacher") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0, said
    assert codes[1] == 0 or any("lock" in text.lower() or "busy" in text.lower() for text in said)
    assert "up to date" in run(sys.executable, "-m", "dvc", "repro", "teacher", cwd=copied).stdout


def test_a_gate_missed_says_by_how_much_and_lowering_it_publishes_at_once(copied: Path):
    change(
        copied,
        "min_all_attributes: 0.0\n    max_loss_ratio: null\ndistill",
        "min_all_attributes: 0.9\n    max_loss_ratio: null\ndistill",
    )
    line = refusal(stage(copied, "ode_init"), code=1)
    assert "0.900 below ode_init.gate.min_all_attributes" in line
    (judged,) = copied.glob(".work/ode_init/*/out/ode_init/metrics.json")
    assert str(judged.parent.relative_to(copied)) in line
    assert json.loads((copied / "data/ode_init/metrics.json").read_text())["gate"]["passed"] is False
    change(copied, "min_all_attributes: 0.9", "min_all_attributes: 0.0")
    before = {path: path.stat().st_mtime for path in copied.glob(".work/ode_init/*/checkpoints/*")}
    assert stage(copied, "ode_init").returncode == 0
    published = json.loads((copied / "data/ode_init/metrics.json").read_text())
    assert published["gate"] == {**published["gate"], "min_all_attributes": 0.0, "passed": True}
    assert {path: path.stat().st_mtime for path in copied.glob(".work/ode_init/*/checkpoints/*")} == before


def test_finished_work_that_was_written_into_is_made_again(copied: Path):
    assert "already made" in stage(copied, "prompts").stderr
    published = copied / "data/prompts/counts.json"
    before = published.read_bytes()
    (work,) = copied.glob(".work/prompts/*/out/prompts/counts.json")
    for file in (published, work):  # one file by two names, until the fixture copied it
        file.write_bytes(b"{}")
    assert "already made" not in stage(copied, "prompts").stderr
    assert published.read_bytes() == before


def test_stages_refuse_another_repositorys_sources(copied: Path):
    elsewhere = {**environment(copied), "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "stages/teacher.py"], cwd=copied, env=elsewhere, capture_output=True, text=True, check=False
    )
    assert "is not this repository's src" in refusal(done)


def test_generate_refuses_what_it_cannot_make(smoke: Path, tmp_path: Path):
    def generate(*words: str) -> str:
        return refusal(run("python", "-m", "filmstill", "generate", "a red three bobs", *words, cwd=smoke, check=False))

    assert "--frames: is 13" in generate("--frames", "13", "--out", str(tmp_path / "a.mp4"))
    assert "--window: is 2" in generate("--window", "2", "--out", str(tmp_path / "a.mp4"))
    assert "allowed: .mp4, .gif" in generate("--out", str(tmp_path / "a.avi"))
    assert "no such file" in generate("--student", "none.safetensors", "--out", str(tmp_path / "a.mp4"))
    assert "is not a student" in generate(
        "--student", "data/teacher/teacher.safetensors", "--out", str(tmp_path / "a.mp4")
    )
