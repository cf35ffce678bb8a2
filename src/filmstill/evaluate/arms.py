"""The arms of a comparison: sources of clips for the same prompts, seeds and noise, and the clock that times them.

Arms: `real` (drawn by the world), `teacher` (ODE sampler), `undistilled` (the teacher's weights in the student's
rollout), `init` (after ODE regression), `student`, and `student_long` (a long stream with a local window).
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
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.sample import guided, sample
from filmstill.evaluate.requests import LONG_ARM
from filmstill.models.codec import Codec
from filmstill.params.samples import Samples
from filmstill.params.shared import guidance_branches
from filmstill.training.setup import Setup
from filmstill.worlds.grammar import parse_all
from filmstill.worlds.symbols import real_clips

WEIGHTS = {"undistilled": TEACHER, "init": INIT, "student": STUDENT, LONG_ARM: STUDENT}

# (prompts, texts to encode, seeds) -> latents [B, f, C, H, W], block by block
Stream = Callable[[list[str], list[str], list[int]], Iterator[Tensor]]


@dataclass(frozen=True)
class Arm:
    """`stream` makes clips; `evaluations` is the number of network passes per clip, in passes over a whole clip."""

    stream: Stream
    evaluations: float

    def of(self, requests: pd.DataFrame) -> Callable[[], Iterator[Tensor]]:
        """A function that makes the clips of these rows."""
        return lambda: self.stream(*(requests[name].tolist() for name in ("prompt", "text", "seed")))


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
    if arm == LONG_ARM:
        frames, config = params.long_frames, _long_config(params, setup)
    return Arm(_student(setup, WEIGHTS[arm], config, frames), config.evaluations(frames))


def _long_config(params: Samples, setup: Setup) -> RolloutConfig:
    """The student's rollout with the long stream's local window."""
    params.check_student(setup.student)
    return replace(
        setup.rollout_config, attention=replace(setup.rollout_config.attention, window_frames=params.long_window_frames)
    )


def _real(setup: Setup) -> Stream:
    codec = setup.codec()

    def stream(prompts: list[str], _texts: list[str], seeds: list[int]) -> Iterator[Tensor]:
        attributes = parse_all(prompts, EVAL_PROMPTS)
        yield codec.encode(real_clips(attributes, setup.world, setup.world.frames, setup.seed, seeds))

    return stream


def _teacher(params: Samples, setup: Setup) -> Stream:
    model, no_text = setup.real_score(), setup.no_text()

    def stream(prompts: list[str], texts: list[str], seeds: list[int]) -> Iterator[Tensor]:
        noise = clip_noise(prompts, seeds, 1, setup.latent_shape)[:, 0].to(setup.device)
        text = setup.encoder.encode(texts).to(setup.device)
        velocity = guided(model, text, no_text, params.guidance_scale)
        yield sample(velocity, noise, setup.schedule, params.teacher_steps, keep=[])[:, -1]

    return stream


def _student(setup: Setup, weights: Path, config: RolloutConfig, frames: int) -> Stream:
    model = setup.frozen(weights)
    shape = (frames, *setup.latent_shape[1:])

    def stream(prompts: list[str], texts: list[str], seeds: list[int]) -> Iterator[Tensor]:
        noise = clip_noise(prompts, seeds, config.noises, shape).to(setup.device)
        yield from rollout(model, model.read_text(setup.encoder.encode(texts).to(setup.device)), noise, config)

    return stream
