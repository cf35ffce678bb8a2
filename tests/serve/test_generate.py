"""`generate` from pictures and clips, under prompts that change, without end, and in batches that go on."""

import io
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from filmstill.errors import FilmstillError
from filmstill.runtime.video import piping, save_video
from filmstill.serve import generate as module
from filmstill.serve.generate import Serving, generate
from filmstill.serve.given import Opening, Size, read_clip
from filmstill.serve.prompt_schedule import PromptSchedule
from filmstill.serve.stream_config import StreamConfig
from filmstill.serve.streamer import Files, Streamer, compute_on

STAR, HEART = PromptSchedule.of("a red star bobs"), PromptSchedule.of("a blue heart sways")


def read(path: Path) -> torch.Tensor:
    return read_clip(path, 1000, Size(32, 32))


def picture(path: Path) -> Path:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:48, 16:48] = (255, 0, 0)
    Image.fromarray(pixels).save(path)
    return path


def test_a_stream_begins_with_the_picture(files: Files, tmp_path: Path):
    image = Opening(picture(tmp_path / "a.png"), False)
    generate([STAR], [0], tmp_path / "a.mp4", files, Serving(frames=6, opening=image))
    video = read(tmp_path / "a.mp4")
    assert len(video) == 6
    shown = video[0, :, 12:20, 12:20].mean(dim=(1, 2))
    assert shown[0] > 0.7 and shown[1:].max() < 0.2
    assert (video[1] - video[0]).abs().mean() > 0.05


def test_a_clip_goes_on_from_its_last_window(files: Files, tmp_path: Path):
    """The given frames are what the codec makes of them, and the rest is what a rollout makes after them."""
    generate([STAR], [3], tmp_path / "a.mp4", files, Serving(frames=12, window=4))
    opening = Opening(tmp_path / "a.mp4", True)
    config = StreamConfig.read(files.student).resized(12, 7)
    given = opening.read(files.codec, config)
    assert torch.equal(given, read(tmp_path / "a.mp4")[-6:])  # whole blocks within the window of 7 frames
    streamer = Streamer.load(files, config, compute_on("cpu"), fast=False)
    pixels = torch.cat(list(streamer.stream(STAR, 0, streamer.codec.encode(given[None]))))
    assert (pixels[:6] - streamer.codec.decode(streamer.codec.encode(given[None]))[0]).abs().max() == 0
    other = torch.cat(list(streamer.stream(STAR, 0)))
    assert not torch.equal(other[6:], pixels[6:])


def test_extending_its_own_first_blocks_gives_the_stream_back(files: Files):
    streamer = Streamer.load(files, StreamConfig.read(files.student).resized(12, None), compute_on("cpu"), False)
    whole = torch.cat(list(streamer.stream(STAR, 0)))
    # Of latents: pixels are clipped and come back as other latents.
    kept = []
    decode = streamer.codec.decode
    object.__setattr__(streamer.codec, "decode", lambda block: kept.append(block) or decode(block))
    list(streamer.stream(STAR, 0))
    object.__setattr__(streamer.codec, "decode", decode)
    assert torch.equal(torch.cat(list(streamer.stream(STAR, 0, torch.cat(kept[:2], 1)))), whole)


@pytest.mark.parametrize("change", ["keep", "recache", "cut"])
def test_a_prompt_changes_at_its_frame_and_not_before(files: Files, change: str):
    config = StreamConfig.read(files.student).resized(12, 7, change)
    streamer = Streamer.load(files, config, compute_on("cpu"), fast=False)
    steady = torch.cat(list(streamer.stream(STAR, 0)))
    changed = torch.cat(list(streamer.stream(PromptSchedule((0, 6), STAR.prompts + HEART.prompts), 0)))
    same = torch.cat(list(streamer.stream(PromptSchedule((0, 6), STAR.prompts * 2), 0)))
    assert torch.equal(changed[:6], steady[:6]) and not torch.equal(changed[6:], steady[6:])
    assert torch.equal(same, steady)


def test_a_batch_goes_on_where_it_was_stopped(files: Files, tmp_path: Path, capsys):
    def made(seeds: list[int], serving: Serving) -> list[str]:
        generate([STAR, HEART], seeds, tmp_path / "a.mp4", files, serving)
        lines = capsys.readouterr().out.splitlines()
        return [Path(line.split(":")[0]).name for line in lines if "are made already" not in line]

    everything = [f"a-00{number}.mp4" for number in range(4)]
    assert made([0, 1], Serving(frames=3)) == everything
    first = {name: (tmp_path / name).read_bytes() for name in everything}
    assert made([0, 1], Serving(frames=3)) == []
    (tmp_path / "a-001.mp4").unlink()
    assert made([0, 1], Serving(frames=3)) == ["a-001.mp4"]
    assert first == {name: (tmp_path / name).read_bytes() for name in everything}
    assert made([0, 2], Serving(frames=3)) == ["a-001.mp4", "a-003.mp4"]
    assert made([0, 2], Serving(frames=6)) == everything
    generate([STAR, HEART], [0, 2], tmp_path / "a.mp4", files, Serving(frames=6))
    assert capsys.readouterr().out == f"{tmp_path / 'a.manifest.json'}: all 4 videos are made already\n"
    assert [entry["seed"] for entry in json.loads((tmp_path / "a.manifest.json").read_text()).values()] == [0, 2, 0, 2]


def test_ctrl_c_in_a_batch_keeps_what_was_made_and_makes_the_rest_the_next_time(
    files: Files, tmp_path: Path, monkeypatch
):
    blocks = Streamer.stream

    def stopped(*arguments):
        yield next(blocks(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(Streamer, "stream", stopped)
    with pytest.raises(KeyboardInterrupt):
        generate([STAR, HEART], [0], tmp_path / "a.mp4", files, Serving(frames=6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-000.mp4"]
    assert len(read(tmp_path / "a-000.mp4")) == 3
    monkeypatch.setattr(Streamer, "stream", blocks)
    generate([STAR, HEART], [0], tmp_path / "a.mp4", files, Serving(frames=6))
    assert [len(read(tmp_path / f"a-00{number}.mp4")) for number in (0, 1)] == [6, 6]


def test_a_file_that_another_call_has_begun_anew_is_made_again(files: Files, tmp_path: Path, monkeypatch):
    blocks = Streamer.stream

    def stopped(*arguments):
        yield next(blocks(*arguments))
        raise KeyboardInterrupt

    generate([STAR, HEART], [0], tmp_path / "a.mp4", files, Serving(frames=6))
    whole = (tmp_path / "a-000.mp4").read_bytes()
    monkeypatch.setattr(Streamer, "stream", stopped)
    with pytest.raises(KeyboardInterrupt):
        generate([HEART, STAR], [0], tmp_path / "a.mp4", files, Serving(frames=6))
    monkeypatch.setattr(Streamer, "stream", blocks)
    generate([STAR, HEART], [0], tmp_path / "a.mp4", files, Serving(frames=6))
    assert (tmp_path / "a-000.mp4").read_bytes() == whole


def test_a_reader_that_leaves_ends_a_stream_without_an_error(files: Files, monkeypatch, capsys):
    @contextmanager
    def leaving(_path: Path, _fps: int):
        written = []

        def write(block: torch.Tensor) -> None:
            if written:
                raise BrokenPipeError
            written.append(block)

        yield write

    monkeypatch.setattr(module, "_sink", leaving)
    generate([STAR], [0], Path("-"), files, Serving(frames=6))
    assert "(ended after 3 frames)" in capsys.readouterr().err


def test_a_file_of_a_stream_without_end_has_an_end(files: Files, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(module, "MAX_FRAMES", 9)
    generate([STAR], [0], tmp_path / "a.mp4", files, Serving(frames="endless", window=4))
    assert len(read(tmp_path / "a.mp4")) == 9 and "(ended after 9 frames)" in capsys.readouterr().out


def test_ctrl_c_ends_a_stream_and_keeps_what_was_made(files: Files, tmp_path: Path, monkeypatch, capsys):
    blocks = Streamer.stream

    def stopped(*arguments):
        for number, block in enumerate(blocks(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(Streamer, "stream", stopped)
    generate([STAR], [0], tmp_path / "a.mp4", files, Serving(frames="endless", window=4))
    assert len(read(tmp_path / "a.mp4")) == 9
    assert "(ended after 9 frames)" in capsys.readouterr().out


def test_a_pipe_is_a_video_and_ends_with_its_reader():
    class Reader(io.BytesIO):
        left = False

        def write(self, data: bytes) -> int:
            if self.left:
                raise BrokenPipeError
            return super().write(data)

    reader, frames = Reader(), torch.linspace(0, 1, 9)[:, None, None, None].expand(9, 3, 32, 32)
    with piping(reader, 8) as write:
        write(frames)
    with av.open(io.BytesIO(reader.getvalue())) as container:
        assert len(list(container.decode(video=0))) == 9
    with pytest.raises(BrokenPipeError), piping(reader, 8) as write:
        reader.left = True
        for _ in range(200):
            write(frames)


@pytest.mark.parametrize(
    ("serving", "prompts", "out", "line"),
    [
        (Serving(frames="endless"), [STAR], "a.mp4", "--frames: is endless, which needs a --window of 4 or more"),
        (
            Serving(frames="endless", window=4),
            [STAR, HEART],
            "a.mp4",
            "--frames: is 'endless', allowed: a number of frames, for 2 streams",
        ),
        (
            Serving(),
            [PromptSchedule((0, 4), ("a", "b"))],
            "a.mp4",
            "--prompts-at: is 4, allowed: the first frame of a block: 3, 6, 9, …",
        ),
        (Serving(), [STAR, HEART], "-", "--out: is -, the standard output, allowed: for one stream; these are 2"),
    ],
)
def test_what_no_stream_can_be_is_refused_before_anything_is_loaded(
    files: Files,
    monkeypatch,
    tmp_path: Path,
    serving: Serving,
    prompts: list,
    out: str,
    line: str,
):
    monkeypatch.setattr(module.Streamer, "load", None)
    with pytest.raises(FilmstillError) as refused:
        generate(prompts, [0], Path(out) if out == "-" else tmp_path / out, files, serving)
    assert str(refused.value) == line


def test_a_clip_that_is_too_short_or_too_long_is_refused(files: Files, tmp_path: Path):
    save_video(torch.zeros(2, 3, 32, 32), tmp_path / "short.mp4", 8)
    save_video(torch.zeros(12, 3, 32, 32), tmp_path / "long.mp4", 8)
    for name, line in (
        ("short.mp4", "short.mp4: is a clip of 2 frames, allowed: at least 3, the student's first block"),
        ("long.mp4", "--frames: is 6, allowed: more than the 6 latent frames that are given by "),
    ):
        with pytest.raises(FilmstillError, match=line):
            generate([STAR], [0], tmp_path / "a.mp4", files, replace(Serving(), opening=Opening(tmp_path / name, True)))
