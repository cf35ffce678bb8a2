"""Bad parameters, damaged artifacts and a full disk: one line that says what to do, the exit code, nothing lost."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from filmstill.__main__ import main
from filmstill.params.distill import Distill
from filmstill.params.schema import Params
from filmstill.params.text import PLACEMENTS
from repository import environment, run
from stage_runs import only_line, refusal, set_parameter, stage

DISTILL_KEYS = f"(allowed keys: {', '.join(field.name for field in fields(Distill))})"
SECTIONS, LAST = ", ".join(field.name for field in fields(Params)), "wan-1.3b-long, wan-14b-teacher, wan-mini"
GATE_KEYS = "prompts, min_all_attributes, max_loss_ratio, stream_frames, min_stream"
MISSING = "params.yaml: 'seed' is missing; `python -m filmstill profile embedded` writes every value"
BROKEN = "params.yaml: distill.critic_lr: Interpolation key 'nothing' not found"
DRAWING, CHECK = ("ode_pairs", "ode_init.gate", "distill.gate"), ("python", "-m", "filmstill", "check")
NO_WINDOW = "params.yaml: student.window_frames: is 2, allowed: null, or at least sink_frames + block_frames = 3"


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("distill.critic_lr", "fast", "params.yaml: distill.critic_lr: is 'fast', allowed: a number"),
        ("distill.critic_lr", -1, "params.yaml: distill.critic_lr: is -1.0, allowed: a number in (0, 10]"),
        ("distill.critic_lr", "${nothing}", BROKEN),
        ("distill.guidance_scale", ".nan", "params.yaml: distill.guidance_scale: is nan, allowed: a finite number"),
        ("world.frames", 13, "params.yaml: world.frames: is 13, allowed: whole blocks of the student: 3, 6, 9, …"),
        ("student.window_frames", 2, NO_WINDOW),
        ("seed", 2**63, f"params.yaml: seed: is {2**63}, allowed: an integer in [0, 2**63)"),
        (
            "seed",
            "zero",
            "params.yaml: seed: is 'zero', allowed: an integer",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(copied: Path, key: str, value: object, line: str):
    set_parameter(copied, key, value)
    assert refusal(stage(copied, "distill")) == line


def test_a_parameter_of_no_such_name_is_refused(copied: Path):
    params = copied / "params.yaml"
    params.write_text(params.read_text().replace("critic_lr:", "critic_lrr:"))
    line = f"params.yaml: distill.critic_lrr: no such key {DISTILL_KEYS}"
    assert refusal(stage(copied, "distill")) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("embeded", f"profile: is 'embeded', allowed: embedded, natural, smoke, wan-1.3b, {LAST}"),
        ("embedded distil.lr=1", f"profile embedded: distil: no such key (allowed keys: {SECTIONS})"),
        (
            "embedded student.denoising_steps=3",
            "profile embedded: student.denoising_steps: is 3, allowed: a divisor of ode_pairs.nodes (4): the "
            "pairs hold no other nodes",
        ),
        ("embedded distill.batch=0", "profile embedded: distill.batch: is 0, allowed: an integer in [1, 65536]"),
        (
            "smoke distill.gate.prompts=0",
            "profile smoke: distill.gate.prompts: is 0, allowed: an integer in [1, 100000]",
        ),
        ("embedded distill.gate=3", f"profile embedded: distill.gate: is 3, allowed: a mapping of {GATE_KEYS}"),
        (
            "embedded samples.long_window_frames=2",
            "profile embedded: samples.long_window_frames: is 2, allowed: at least student's sink + block = 3",
        ),
        ("embedded distill.lr", "override 'distill.lr': must be key=value, for instance distill.lr=2e-6"),
        ("embedded distill=${nothing}", "profile embedded: distill: Interpolation key 'nothing' not found"),
        (
            "embedded distill.gate.prompts=???",
            "profile embedded: distill.gate.prompts: Missing mandatory value: prompts",
        ),
    ],
)
def test_profile_refuses_what_no_stage_could_run(capsys, monkeypatch, copied: Path, words: str, line: str):
    monkeypatch.chdir(copied)
    before = Path("params.yaml").read_text()
    assert main(["profile", *words.split()]) == 2
    assert capsys.readouterr() == ("", f"filmstill: {line}\n")
    assert Path("params.yaml").read_text() == before


def test_check_misses_no_value(capsys, monkeypatch, copied: Path):
    monkeypatch.chdir(copied)
    assert main(["check"]) == 0
    params = Path("params.yaml")
    params.write_text(re.sub(r"(?m)^seed:.*\n", "", params.read_text()))
    capsys.readouterr()
    assert main(["check"]) == 2
    assert only_line(capsys.readouterr().err) == MISSING


PAIRS_ADVICE = "use the pairs' schedule.shift and a divisor of ode_pairs.nodes, or make the pairs again"


def test_pairs_without_the_students_timesteps_are_refused(copied: Path):
    set_parameter(copied, "schedule.shift", 5.0)
    wanted = "is 4 (timesteps 1000, 937.5, 833.333, 625), but the pairs hold timesteps 1000, 900, 750, 500"
    assert refusal(stage(copied, "ode_init")) == f"student.denoising_steps: {wanted}; {PAIRS_ADVICE}"


def test_a_stage_refuses_what_a_later_one_could_not_run(copied: Path):
    """Before it spends hours; what it is made of has not changed."""
    set_parameter(copied, "distill.lr", -1)
    for name in ("prompts", "teacher"):
        assert refusal(stage(copied, name)) == "params.yaml: distill.lr: is -1.0, allowed: a number in (0, 10]"


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickle(path: Path) -> None:
    torch.save({"x": torch.zeros(2)}, path)


@pytest.mark.parametrize("name", ["data/teacher/teacher.safetensors", "data/ode_pairs/pairs-0001.safetensors"])
@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (flip_bit, r"damaged: its content does not have the SHA-256 [0-9a-f]{12}… of its header"),
        (truncate, r"not a whole safetensors file; it is truncated: \d+ of \d+ bytes are there \(.+\)"),
        (pickle, r"a pickle \(torch\.save\); only safetensors is read here, a pickle is never opened \(.+\)"),
    ],
)
def test_a_damaged_artifact_is_refused_by_name(copied: Path, name: str, damage, pattern: str):
    damage(copied / name)
    shutil.rmtree(copied / ".work/ode_init")
    path, _, rest = refusal(stage(copied, "ode_init")).partition(": ")
    assert path == name and re.fullmatch(pattern, rest)


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
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    pattern = r"warning: (\S+): is damaged or was not finished; it is made again"
    assert [re.fullmatch(pattern, line)[1] for line in warnings] == [str(shard.relative_to(copied))]
    assert (copied / "data/ode_pairs/pairs-0001.safetensors").read_bytes() == whole


def test_weights_of_other_sizes_are_refused(copied: Path):
    set_parameter(copied, "model.dim", 64)
    assert refusal(stage(copied, "ode_init")) == (
        "data/teacher/teacher.safetensors: a network of other sizes: dim 48 (params.yaml: 64); "
        "set model.* to match or run its stage"
    )


def test_a_work_folder_that_cannot_be_written_is_one_line(copied: Path):
    shutil.rmtree(copied / ".work")
    (copied / ".work").write_text("in the way")
    line = r"\.work/teacher/\w{16}/lock: cannot be written \(Not a directory\); make the folder writable and run again"
    assert re.fullmatch(line, refusal(stage(copied, "teacher")))


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(copied: Path):
    whole = (copied / "data/teacher/teacher.safetensors").read_bytes()
    shutil.rmtree(copied / ".work")
    (copied / ".work").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(copied / ".work")], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    try:
        full = r"(\S+): disk full while writing; free some space and run again, finished work is kept"
        assert re.fullmatch(full, refusal(stage(copied, "teacher")))
        subprocess.run(["mount", "-o", "remount,size=200m", str(copied / ".work")], check=True)
        assert stage(copied, "teacher").returncode == 0
    finally:
        subprocess.run(["umount", str(copied / ".work")], check=True)
    assert (copied / "data/teacher/teacher.safetensors").read_bytes() == whole


@pytest.mark.parametrize("name", ["ode_pairs", "samples"])
def test_a_fan_out_checks_what_its_shards_read_before_one_starts(copied: Path, name: str):
    shutil.rmtree(copied / ".work" / name)
    set_parameter(copied, "text.placement", "attic")
    line = f"params.yaml: text.placement: is 'attic', allowed: one of {', '.join(PLACEMENTS)}"
    assert refusal(stage(copied, name)) == line
    set_parameter(copied, "text.placement", "cpu")
    set_parameter(copied, f"{name}.prompts", 100_000)  # more than the split has
    line = refusal(stage(copied, name))
    assert line.startswith(f"params.yaml: {name}.prompts: is 100000, but data/prompts/")
    assert line.endswith("lower it or filter less")
    assert not list(copied.glob(f".work/{name}/*/logs"))


@pytest.mark.parametrize(
    ("key", "holds"),
    [
        *((f"{section}.prompts", r"train\.parquet holds (\d+) prompts") for section in DRAWING),
        ("samples.prompts", r"eval\.parquet holds (\d+) prompts of combinations trained on"),
        ("samples.held_out_prompts", r"eval\.parquet holds (\d+) prompts of held-out combinations"),
        ("samples.open_prompts", r"eval\.parquet holds (\d+) prompts that leave the colour open"),
    ],
)
def test_too_few_prompts_are_found_before_the_teacher_is_trained(copied: Path, key: str, holds: str):
    set_parameter(copied, key, 100_000)
    line = refusal(stage(copied, "teacher"))
    held = re.fullmatch(rf"params\.yaml: {key}: is 100000, but data/prompts/{holds}; lower it or filter less", line)
    assert held and line in run(*CHECK, cwd=copied, check=False).stderr
    set_parameter(copied, key, int(held[1]))
    run(*CHECK, cwd=copied)
    set_parameter(copied, key, 100_000)
    set_parameter(copied, "prompts.eval_share", 0.3)  # the tables are to be made anew: nothing is known yet
    run(*CHECK, cwd=copied)


def test_a_missed_gate_says_by_how_much_and_a_lower_one_publishes_without_training(copied: Path):
    set_parameter(copied, "ode_init.gate.min_all_attributes", 0.9)
    line = refusal(stage(copied, "ode_init"), code=1)
    (judged,) = copied.glob(".work/ode_init/*/out/ode_init/metrics.json")
    score = json.loads(judged.read_text())["all_attributes"]
    assert line == (
        f"ode_init: misses its gate: all_attributes is {score:.3f}, {0.9 - score:.3f} below "
        f"ode_init.gate.min_all_attributes. Weights and metrics.json are kept in {judged.parent.relative_to(copied)}: "
        "train longer, or lower the gate in params.yaml, which publishes them without training again"
    )
    assert json.loads((copied / "data/ode_init/metrics.json").read_text())["gate"]["passed"] is False
    set_parameter(copied, "ode_init.gate.min_all_attributes", 0.0)
    before = {path: path.stat().st_mtime for path in copied.glob(".work/ode_init/*/checkpoints/*")}
    assert stage(copied, "ode_init").returncode == 0
    published = json.loads((copied / "data/ode_init/metrics.json").read_text())
    assert published["gate"] == {**published["gate"], "min_all_attributes": 0.0, "passed": True}
    assert before == {path: path.stat().st_mtime for path in copied.glob(".work/ode_init/*/checkpoints/*")}


def test_finished_work_that_was_written_into_is_made_again(copied: Path):
    (work,) = (copied / ".work/prompts").iterdir()
    already = f"prompts: already made, in {work.relative_to(copied)}"
    assert already in stage(copied, "prompts").stderr.splitlines()
    published = copied / "data/prompts/counts.json"
    before = published.read_bytes()
    for file in (published, work / "out/prompts/counts.json"):  # hard links to one file until the fixture copied them
        file.write_bytes(b"{}")
    assert already not in stage(copied, "prompts").stderr.splitlines()
    assert published.read_bytes() == before


def test_stages_refuse_another_repositorys_sources(copied: Path):
    source = Path(__file__).parents[2] / "src"
    elsewhere = {**environment(copied), "PYTHONPATH": str(source)}
    words = [sys.executable, "stages/teacher.py"]
    done = subprocess.run(words, cwd=copied, env=elsewhere, capture_output=True, text=True, check=False)
    expected = f"{source}/filmstill: is not this repository's src; run `dvc repro`, which sets PYTHONPATH=src"
    assert refusal(done) == expected


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--frames", "13"), "--frames: is 13, allowed: whole blocks of the student: 3, 6, 9, …"),
        (("--window", "2"), "--window: is 2, allowed: at least the student's sink + block = 3 frames"),
        (
            ("--out", "{folder}/a.avi"),
            "{folder}/a.avi: '.avi' is not a video format written here, allowed: .mp4, .gif",
        ),
        (
            ("--student", "none.safetensors"),
            "none.safetensors: no such file; the stage that makes it has not run (dvc repro)",
        ),
        (
            ("--student", "data/teacher/teacher.safetensors"),
            "data/teacher/teacher.safetensors: is not a student (its header has no rollout); "
            "use data/distill/student.safetensors",
        ),
    ],
)
def test_generate_refuses_what_it_cannot_make(smoke: Path, tmp_path: Path, words: tuple[str, str], line: str):
    out = ("--out", f"{tmp_path}/a.mp4")
    words = (words[0], words[1].format(folder=tmp_path))
    done = run("python", "-m", "filmstill", "generate", "a red star bobs", *out, *words, cwd=smoke, check=False)
    assert refusal(done) == line.format(folder=tmp_path)
    assert os.listdir(tmp_path) == []
