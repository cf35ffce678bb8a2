"""The arms of a comparison: sources of clips for the same prompts, seeds and noise, and the clock that times them.

Arms: `real` (drawn by the world), `teacher` (ODE sampler), `undistilled` (the teacher's weights in the student's
rollout), `init` (after ODE regression), `student`, `student_long` (a long stream with a local window), and in a world
with a judge `student_picture` (a clip that begins with a given frame) and `student_changed` (a stream whose prompt
changes).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from filmstill.artifacts import EVAL_PROMPTS, INIT, STUDENT, TEACHER
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, TextAt, rollout
from filmstill.diffusion.sample import guided, sample
from filmstill.evaluate.requests import CHANGED_ARM, LONG_ARM, PICTURE_ARM
from filmstill.models.codec import Codec
from filmstill.models.dit import VideoDiT
from filmstill.models.prompts_by_frame import TextKV
from filmstill.params.samples import Samples
from filmstill.params.shared import guidance_branches
from filmstill.training.setup import Setup
from filmstill.worlds.grammar import parse_all
from filmstill.worlds.symbols import real_clips

WEIGHTS = {"undistilled": TEACHER, "init": INIT}  # of all other students: STUDENT

Stream = Callable[[pd.DataFrame], Iterator[Tensor]]  # rows of `requests` -> latents [B, f, C, H, W], block by block


@dataclass(frozen=True)
class Arm:
    """`stream` makes clips; `evaluations` is the number of network passes per clip, in passes over a whole clip."""

    stream: Stream
    evaluations: float

    def of(self, requests: pd.DataFrame) -> Callable[[], Iterator[Tensor]]:
        """A function that makes the clips of these rows."""
        return lambda: self.stream(requests)


@dataclass(frozen=True)
class Timed:
    """A batch of clips: latents [B, F, C, H, W], video [B, f, 3, h, w] and times in seconds.

    first_block: until the first block was decoded. seconds: in total. network_seconds: in total, without decoding.
    """

    latents: Tensor
    video: Tensor
    first_block: float
    seconds: float
    network_seconds: float


@torch.inference_mode()
def timed(make: Callable[[], Iterator[Tensor]], codec: Codec) -> Timed:
    """Make a batch of clips block by block, decoding each block as it comes."""
    blocks: list[Tensor] = []
    in_network = 0.0

    def timed_blocks() -> Iterator[Tensor]:
        nonlocal in_network
        stream = make()
        while True:
            began = _clock()
            block = next(stream, None)
            in_network += _clock() - began
            if block is None:
                return
            blocks.append(block)
            yield block

    start, first, pieces = _clock(), None, []
    for piece in codec.decode_stream(timed_blocks()):
        first = first or _clock() - start
        pieces.append(piece)
    seconds = _clock() - start
    return Timed(torch.cat(blocks, dim=1), torch.cat(pieces, dim=1).cpu(), first or 0.0, seconds, in_network)


def _clock() -> float:
    """Seconds now, after all work queued on the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def time_in_turns(sources: dict[str, Callable[[int], Timed]], rounds: int) -> list[dict[str, str | float]]:
    """Times of every arm and round, a row each; in a round, the arms run one after another.

    sources: by arm, a function that makes that number of clips, 0: a whole batch. What disturbs the machine for a
    while disturbs all arms of a round alike, so the ratio of two arms is that of their times in the same round.
    The times are seconds per clip, with decoding, without loading the network.
    """
    rows: list[dict[str, str | float]] = []
    for run in sources.values():
        run(1)  # warm up: memory, compiled kernels
    for number in range(rounds):
        for arm, run in sources.items():
            first, batch = run(1).first_block, run(0)  # of a single clip: a viewer's waiting time
            clips = len(batch.latents)
            seconds = {"seconds": batch.seconds / clips, "network_seconds": batch.network_seconds / clips}
            rows.append({"arm": arm, "round": number, **seconds, "first_block_seconds": first})
    return rows


def build(arm: str, params: Samples, setup: Setup) -> Arm:
    """Load an arm's networks."""
    if arm == "real":
        return Arm(_real(setup), 0.0)
    if arm == "teacher":
        passes = guidance_branches(params.guidance_scale) * params.teacher_steps
        return Arm(_teacher(params, setup), float(passes))
    frames, config = setup.world.frames, setup.rollout_config
    if arm in (LONG_ARM, CHANGED_ARM):
        frames = params.long_frames if arm == LONG_ARM else params.changed_frames
        config = _long_config(params, setup)
    weights = WEIGHTS.get(arm, STUDENT)
    return Arm(_student(setup, weights, config, frames, arm == PICTURE_ARM), config.evaluations(frames))


def _long_config(params: Samples, setup: Setup) -> RolloutConfig:
    """The student's rollout with the long stream's local window."""
    params.check_student(setup.student, setup.world.name)
    return replace(
        setup.rollout_config, attention=replace(setup.rollout_config.attention, window_frames=params.long_window_frames)
    )


def _real(setup: Setup) -> Stream:
    codec = setup.codec()

    def stream(rows: pd.DataFrame) -> Iterator[Tensor]:
        yield _drawn(setup, codec, rows, setup.world.frames)

    return stream


def _drawn(setup: Setup, codec: Codec, rows: pd.DataFrame, frames: int) -> Tensor:
    """Latents of the first frames of the real clips of these rows."""
    attributes = parse_all(rows["prompt"].tolist(), EVAL_PROMPTS)
    return codec.encode(real_clips(attributes, setup.world, frames, setup.seed, rows["seed"].tolist()))


def _teacher(params: Samples, setup: Setup) -> Stream:
    model, no_text = setup.real_score(), setup.no_text()

    def stream(rows: pd.DataFrame) -> Iterator[Tensor]:
        noise = _noise(rows, 1, setup, setup.latent_shape[0])[:, 0]
        text = setup.encoder.encode(rows["text"].tolist()).to(setup.device)
        velocity = guided(model, text, no_text, params.guidance_scale)
        yield sample(velocity, noise, setup.schedule, params.teacher_steps, keep=[])[:, -1]

    return stream


def _student(setup: Setup, weights: Path, config: RolloutConfig, frames: int, from_picture: bool) -> Stream:
    """from_picture: whether a clip begins with the first frame of its real clip."""
    model, codec = setup.frozen(weights), setup.codec() if from_picture else None

    def stream(rows: pd.DataFrame) -> Iterator[Tensor]:
        noise, text = _noise(rows, config.noises, setup, frames), _prompts(setup, model, rows)
        given = _drawn(setup, codec, rows, 1).to(setup.device) if codec else None
        yield from rollout(model, text, noise, config, given=given)

    return stream


def _noise(rows: pd.DataFrame, noises: int, setup: Setup, frames: int) -> Tensor:
    """Noise [B, noises, frames, C, H, W] of the clips of these rows."""
    shape = (frames, *setup.latent_shape[1:])
    return clip_noise(rows["prompt"].tolist(), rows["seed"].tolist(), noises, shape).to(setup.device)


def _prompts(setup: Setup, model: VideoDiT, rows: pd.DataFrame) -> TextKV | TextAt:
    """The prompts as the network reads them: one per clip, or where it changes, those of each block."""

    def read(column: str) -> TextKV:
        return model.read_text(setup.encoder.encode(rows[column].tolist()).to(setup.device))

    first = read("text")
    if "next_text" not in rows:
        return first
    second, change = read("next_text"), int(rows["change_frame"].iloc[0])
    return lambda frame: first if frame < change else second
