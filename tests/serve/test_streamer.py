"""A student served from its files: what it streams, and which files and streams are refused in one line."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from counting import Live
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import rollout
from filmstill.errors import FilmstillError
from filmstill.models.weights import load_model, save_model
from filmstill.runtime.tensor_files import save_tensors
from filmstill.serve import stream_config
from filmstill.serve.generate import Serving, generate
from filmstill.serve.prompt_schedule import PromptSchedule
from filmstill.serve.stream_config import StreamConfig
from filmstill.serve.streamer import Files, Streamer, compute_on
from goldens import TINY, tiny


def load(files: Files, frames: int | None = None, window: int | None = None) -> Streamer:
    """The student of `files`, for clips of `frames` under `window`."""
    return Streamer.load(files, StreamConfig.read(files.student).resized(frames, window), compute_on("cpu"), fast=False)


def test_a_stream_is_the_decoded_rollout_block_by_block(files: Files):
    streamer = load(files)
    pieces = list(streamer.stream(PromptSchedule.of("a red star bobs"), seed=1))
    assert [tuple(piece.shape) for piece in pieces] == [(3, 3, 32, 32)] * 2
    config = streamer.config.rollout
    assert (len(config.sigmas), config.attention.block_frames, config.attention.sink_frames) == (2, 3, 1)
    noise = clip_noise(["a red star bobs"], [1], config.noises, streamer.config.latent_shape)
    text = streamer.model.read_text(streamer.encoder.encode(["a red star bobs"]))
    with torch.no_grad():
        latents = torch.cat(list(rollout(streamer.model, text, noise, config)), dim=1)
    assert torch.equal(torch.cat(pieces), streamer.codec.decode(latents)[0])


def test_a_longer_stream_begins_with_the_shorter_one(files: Files):
    short = torch.cat(list(load(files).stream(PromptSchedule.of("a blue sun sways"), seed=0)))
    long = torch.cat(list(load(files, 12).stream(PromptSchedule.of("a blue sun sways"), seed=0)))
    assert len(long) == 2 * len(short) and torch.equal(long[: len(short)], short)
    windowed = torch.cat(list(load(files, 12, 4).stream(PromptSchedule.of("a blue sun sways"), seed=0)))
    assert torch.equal(windowed[:3], long[:3]) and not torch.equal(windowed[6:], long[6:])


@pytest.mark.parametrize(
    ("frames", "window", "line"),
    [
        (7, None, "--frames: is 7, allowed: whole blocks of the student: 3, 6, 9, …"),
        (0, None, "--frames: is 0, allowed: whole blocks of the student: 3, 6, 9, …"),
        (-3, None, "--frames: is -3, allowed: whole blocks of the student: 3, 6, 9, …"),
        (999_999_999, 4, "--frames: makes 999,999,999 frames of video, allowed: at most 1,000,000 in a file"),
        (3 * 10**30, 4, f"--frames: makes {3 * 10**30:,} frames of video, allowed: at most 1,000,000 in a file"),
        (6, 3, "--window: is 3, allowed: at least the student's sink + block = 4 frames"),
    ],
)
def test_a_stream_that_the_student_cannot_roll_out_is_refused(files: Files, frames: int, window: int | None, line: str):
    with pytest.raises(FilmstillError) as refused:
        generate([PromptSchedule.of("a red star")], [0], Path("a.mp4"), files, Serving(frames, window))
    assert str(refused.value) == line


def test_generate_numbers_several_clips_and_keeps_one_name_for_one(files: Files, tmp_path: Path, capsys):
    generate([PromptSchedule.of("a red star sways")], [0, 1], tmp_path / "a.mp4", files, Serving(3, None))
    generate([PromptSchedule.of("a red star sways")], [0], tmp_path / "b.gif", files, Serving(3, None))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-000.mp4", "a-001.mp4", "a.manifest.json", "b.gif"]
    lines = capsys.readouterr().out.splitlines()
    clips = (("a-000.mp4", 0), ("a-001.mp4", 1), ("b.gif", 0))
    expected = [f"{tmp_path / name}: 'a red star sways', seed {seed}" for name, seed in clips]
    assert [line.split(": first block after")[0] for line in lines] == expected


def test_a_network_that_is_no_student_is_refused(files: Files, tmp_path: Path):
    model = tiny("causal")
    save_model(tmp_path / "teacher.safetensors", model.state_dict(), TINY, {"shift": 3.0})
    with pytest.raises(FilmstillError, match=r"teacher\.safetensors: is not a student"):
        StreamConfig.read(tmp_path / "teacher.safetensors")


def with_facts(files: Files, folder: Path, **facts: Any) -> Path:
    """The student's file with other facts in its header."""
    model, header = load_model(files.student)
    save_model(folder / "s.safetensors", model.state_dict(), model.config, {**header, **facts})
    return folder / "s.safetensors"


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"window_frames": 2}, "window_frames: is 2, allowed: null, or at least sink_frames + block_frames = 4"),
        ({"sink_frames": -1}, "sink_frames: is -1, allowed: an integer in [0, 100000]"),
        ({"block_frames": 0}, "block_frames: is 0, allowed: an integer in [1, 10000]"),
        ({"block_frames": None}, "block_frames: "),
        ({"context_noise": float("nan")}, "context_noise: is nan, allowed: a finite number"),
        ({"shift": "3"}, "shift: is '3', allowed: a positive number"),
        ({"shift": float("inf")}, "shift: is inf, allowed: a positive number"),
        ({"fps": 0}, "fps: is 0, allowed: an integer from 1 to 1000"),
        (
            {"latent_shape": [6, 16, 8]},
            "latent_shape: is [6, 16, 8], allowed: [F, C, H, W] with F a multiple of 3, C = 16",
        ),
        ({"latent_shape": [6, 4, 8, 8]}, "latent_shape: is [6, 4, 8, 8], allowed: [F, C, H, W] with F a multiple of 3"),
        ({"latent_shape": None}, "latent_shape: is None, allowed: [F, C, H, W]"),
    ],
)
def test_a_students_file_with_an_impossible_fact_is_refused_by_name(
    files: Files, tmp_path: Path, facts: dict[str, Any], line: str
):
    file = with_facts(files, tmp_path, **facts)
    with pytest.raises(FilmstillError) as refused:
        StreamConfig.read(file)
    assert str(refused.value).startswith(f"{file}: {line}") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ({"config": "{", "facts": "{}"}, "config in its header: is '{', allowed: a JSON object; restore the file"),
        ({"config": "{}", "facts": "[]"}, "facts in its header: is '[]', allowed: a JSON object; restore the file"),
        ({"config": '{"dim": "48"}', "facts": "{}"}, "config: dim: is '48', allowed: a positive integer; restore"),
        ({"config": "{}"}, "has no 'facts' in its header; it was not written by a filmstill stage"),
    ],
)
def test_a_students_file_with_another_header_is_refused(tmp_path: Path, header: dict[str, str], line: str):
    save_tensors(tmp_path / "s.safetensors", {}, header)
    for read in (StreamConfig.read, load_model):
        with pytest.raises(FilmstillError) as refused:
            read(tmp_path / "s.safetensors")
        assert str(refused.value).startswith(f"{tmp_path}/s.safetensors: {line}")


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_streams_memory_is_the_windows_whatever_its_length(files: Files, tmp_path: Path, suffix: str, capsys):
    """Bytes of live tensors, and of Python's and numpy's allocations, at their peaks."""

    def peaks(frames: int) -> tuple[int, int]:
        tracemalloc.start()
        with Live() as live:
            generate([PromptSchedule.of("a red star")], [0], tmp_path / f"a{suffix}", files, Serving(frames, 4))
        _, python = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return live.peak, python

    peaks(27)  # what a process allocates once, the position embeddings of the frames included
    (short, short_python), (long, long_python) = peaks(9), peaks(27)
    assert long == short
    assert long_python - short_python < 49_152  # bytes of one frame; the difference is 18 frames


class Full(Exception):
    """Raised where the work would begin."""


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a student's weights raises Full."""

    def begin(*_: object) -> None:
        raise Full

    monkeypatch.setattr(Streamer, "load", begin)


@pytest.mark.parametrize(
    ("frames", "window", "refused"), [(30_000, None, True), (30_000, 60, False), (300, None, False)]
)
def test_a_kv_cache_that_exceeds_the_memory_is_refused_with_the_window_that_bounds_it(
    files: Files, monkeypatch, no_work, frames: int, window: int | None, refused: bool
):
    monkeypatch.setattr(stream_config, "free_memory", lambda device: 2**28)
    with pytest.raises(FilmstillError if refused else Full) as error:
        generate([PromptSchedule.of("a red star")], [0], Path("a.mp4"), files, Serving(frames, window))
    if refused:
        # 2 layers, keys and values, 48 numbers of 4 bytes, 16 tokens per frame
        size = 2 * 2 * 48 * 4 * 16 * 30_000 / 2**30
        assert str(error.value) == (
            f"--frames: is 30000, whose KV cache takes {size:.1f} GiB, allowed: what fits into the 0.2 GiB of memory "
            "that are free; a --window of 4 or more frames bounds it"
        )


def test_a_large_kv_cache_is_announced(files: Files, filmstill_log: pytest.LogCaptureFixture, no_work, monkeypatch):
    monkeypatch.setattr(stream_config, "free_memory", lambda device: 2**40)
    for frames, window in ((90_000, None), (90_000, 60), (300, None)):
        with pytest.raises(Full):
            generate([PromptSchedule.of("a red star")], [0], Path("a.mp4"), files, Serving(frames, window))
    (line,) = (record.getMessage() for record in filmstill_log.records)
    assert line == "the KV cache takes 1.0 GiB; a --window of 4 or more frames bounds it"


def test_every_target_is_tried_before_anything_is_loaded(files: Files, tmp_path: Path, no_work):
    (tmp_path / "a-001.mp4").mkdir()
    (tmp_path / "file").touch()
    nothing = replace(files, student=tmp_path / "none.safetensors")  # found missing only after the targets
    for out, seeds, line in (
        ("a.mp4", [0, 1], "a-001.mp4: is a folder, allowed: the name of a file; choose another name"),
        ("a-001.mp4", [0], "a-001.mp4: is a folder, allowed: the name of a file; choose another name"),
        ("file/b.mp4", [0], f"file/b.mp4: cannot be written: {tmp_path}/file is a file, allowed: a folder"),
        ("c.avi", [0], "c.avi: '.avi' is not a video format written here, allowed: .mp4, .gif"),
    ):
        with pytest.raises(FilmstillError) as refused:
            generate([PromptSchedule.of("a red star")], seeds, tmp_path / out, nothing, Serving(None, None))
        assert str(refused.value).startswith(f"{tmp_path}/{line}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-001.mp4", "file"]


def test_files_of_another_kind_are_named(files: Files, tmp_path: Path):
    folder, file = tmp_path / "folder", tmp_path / "README.md"
    folder.mkdir()
    file.write_text("text")
    text, link = folder / "encoder.json", tmp_path / "link.safetensors"
    link.symlink_to("gone")
    is_folder = f"{folder}: is a folder, allowed: one .safetensors of filmstill; give the file in it"
    no_encoder = f"{folder}/encoder.json: no such file; the stage that makes it has not run (dvc repro)"
    for changes, line in (
        ({"student": folder}, is_folder),
        ({"codec": folder}, is_folder),
        ({"student": link}, f"{link}: no such file (a link to gone, which does not exist); the stage that makes it"),
        ({"text": file}, f"{file}: is a file, allowed: a text encoder's folder, with encoder.json in it; give data/"),
        ({"text": folder}, no_encoder),
        ({"text": tmp_path / "none"}, no_encoder.replace("folder", "none")),
    ):
        with pytest.raises(FilmstillError) as refused:
            generate([PromptSchedule.of("a")], [0], tmp_path / "a.mp4", replace(files, **changes), Serving(None, None))
        assert str(refused.value).startswith(line)
    for facts, reason in (
        ('{"kind": "hashed_words"}', "text_len: is None, allowed: an integer from 1 to 65536; restore the file"),
        ('{"kind": "hashed_words", "text_len": 8, "text_dim": "8"}', "text_dim: is '8', allowed: an integer from 1"),
        ('{"kind": "umt5"}', "config: is None, allowed: sizes; import the encoder again"),
        ('{"kind": "clip"}', "kind: is 'clip', allowed: 'umt5'; import the encoder again"),
    ):
        text.write_text(facts)
        with pytest.raises(FilmstillError) as refused:
            load(replace(files, text=folder))
        assert str(refused.value).startswith(f"{text}: {reason}")
