"""A student served from its files: what it streams, and which files and streams are refused in one line."""

from pathlib import Path

import pytest
import torch

from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import rollout
from filmstill.errors import FilmstillError
from filmstill.models.codec import DctCodec
from filmstill.models.load import save_hashed_words
from filmstill.models.text import HashedWords
from filmstill.models.weights import save_model
from filmstill.params.student import Student
from filmstill.params.world import World
from filmstill.serve.generate import generate
from filmstill.serve.streamer import Files, Streamer
from filmstill.training.setup import student_facts
from goldens import TINY, tiny

STUDENT = Student(denoising_steps=2, block_frames=3, sink_frames=1)
CHANNELS = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a tiny student with random weights."""
    folder = tmp_path_factory.mktemp("student")
    config = TINY.__class__(**{**TINY.__dict__, "in_channels": CHANNELS})
    torch.manual_seed(0)
    model = tiny("causal").__class__(config)
    facts = student_facts(3.0, STUDENT, World(frames=6), CHANNELS)
    save_model(folder / "student.safetensors", model.state_dict(), config, facts)
    DctCodec(torch.zeros(CHANNELS), torch.ones(())).save(folder / "codec.safetensors")
    save_hashed_words(folder / "text", HashedWords(8, config.text_dim))
    return Files(folder / "student.safetensors", folder / "codec.safetensors", folder / "text")


def test_a_stream_is_the_decoded_rollout_block_by_block(files: Files):
    streamer = Streamer.load(files, "cpu", fast=False)
    pieces = list(streamer.stream("a red three bobs", seed=1))
    assert [tuple(piece.shape) for piece in pieces] == [(3, 3, 32, 32)] * 2
    config = streamer.rollout_config
    assert (len(config.sigmas), config.attention.block_frames, config.attention.sink_frames) == (2, 3, 1)
    noise = clip_noise(["a red three bobs"], [1], config.noises, streamer.latent_shape)
    text = streamer.model.read_text(streamer.encoder.encode(["a red three bobs"]))
    with torch.no_grad():
        latents = torch.cat(list(rollout(streamer.model, text, noise, config)), dim=1)
    assert torch.equal(torch.cat(pieces), streamer.codec.decode(latents)[0])


def test_a_longer_stream_begins_with_the_shorter_one(files: Files):
    streamer = Streamer.load(files, "cpu", fast=False)
    short = torch.cat(list(streamer.stream("a blue one sways", seed=0)))
    long = torch.cat(list(streamer.with_stream(12, None).stream("a blue one sways", seed=0)))
    assert len(long) == 2 * len(short) and torch.equal(long[: len(short)], short)
    windowed = torch.cat(list(streamer.with_stream(12, 4).stream("a blue one sways", seed=0)))
    assert torch.equal(windowed[:3], long[:3]) and not torch.equal(windowed[6:], long[6:])


@pytest.mark.parametrize(
    ("frames", "window", "line"),
    [
        (7, None, "--frames: is 7, allowed: a positive multiple of the student's block of 3 frames"),
        (0, None, "--frames: is 0, allowed: a positive multiple of the student's block of 3 frames"),
        (6, 3, "--window: is 3, allowed: at least the student's sink + block = 4 frames"),
    ],
)
def test_a_stream_that_the_student_cannot_roll_out_is_refused(files: Files, frames: int, window: int | None, line: str):
    with pytest.raises(FilmstillError) as refused:
        Streamer.load(files, "cpu", fast=False).with_stream(frames, window)
    assert str(refused.value) == line


def test_generate_numbers_several_clips_and_keeps_one_name_for_one(files: Files, tmp_path: Path, capsys):
    generate(["a red one sways"], [0, 1], tmp_path / "a.mp4", files, 3, None, "cpu", False)
    generate(["a red one sways"], [0], tmp_path / "b.gif", files, 3, None, "cpu", False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-000.mp4", "a-001.mp4", "b.gif"]
    lines = capsys.readouterr().out.splitlines()
    clips = (("a-000.mp4", 0), ("a-001.mp4", 1), ("b.gif", 0))
    expected = [f"{tmp_path / name}: 'a red one sways', seed {seed}" for name, seed in clips]
    assert [line.split(": first block after")[0] for line in lines] == expected


def test_a_network_that_is_no_student_is_refused(files: Files, tmp_path: Path):
    model = tiny("causal")
    save_model(tmp_path / "teacher.safetensors", model.state_dict(), TINY, {"shift": 3.0})
    with pytest.raises(FilmstillError, match=r"teacher\.safetensors: is not a student"):
        Streamer.load(Files(tmp_path / "teacher.safetensors", files.codec, files.text), "cpu", fast=False)
