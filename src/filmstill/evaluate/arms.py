"""The arms of a comparison: who makes clips, from the same prompts, seeds and noise, and how long it takes.

Arms: `real` (the world itself), `teacher` (ODE sampler), `undistilled` (the teacher's weights in the student's
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
from filmstill.diffusion.rollout import RolloutPlan, rollout
from filmstill.diffusion.sample import guided, sample
from filmstill.distill.setup import Setup
from filmstill.evaluate.names import LONG_ARM
from filmstill.params.load import require, section
from filmstill.params.samples import Samples
from filmstill.prompts.store import load_prompts
from filmstill.runtime.fanout import report_done
from filmstill.runtime.files import save_tensors, write_json
from filmstill.worlds.digits import real_clips
from filmstill.worlds.grammar import parse_all

WEIGHTS = {"undistilled": TEACHER, "init": INIT, "student": STUDENT, LONG_ARM: STUDENT}

# (prompts, texts to encode, seeds) -> latents [B, f, C, H, W], block after block
Stream = Callable[[list[str], list[str], list[int]], Iterator[Tensor]]


@dataclass(frozen=True)
class Arm:
    """`stream` makes clips; `evaluations` are network passes a clip, in whole-clip units."""

    stream: Stream
    evaluations: float


def requests(params: Samples, arm: str) -> pd.DataFrame:
    """What every arm is asked for: columns id, prompt, text, seed; a prompt's seeds side by side."""
    long = arm == LONG_ARM
    prompts = load_prompts(EVAL_PROMPTS, params.prompts, "samples.prompts")
    if long:
        return prompts.head(params.long_prompts).assign(seed=0)
    seeds = pd.DataFrame({"seed": range(params.seeds)})
    return prompts.merge(seeds, how="cross")


def make_arm(arm: str, out: Path) -> None:
    """Write one arm's latents [N, F, C, H, W], and its timing beside them (a clock's numbers differ run by run).

    Seconds of a clip: its batch's, by as many clips; the codec's decoding counts, loading the network does not, nor
    does the first of several batches (None): it is the one that finds the process without its memory.
    """
    params, setup = section(Samples, "samples"), Setup.read()
    made_by, codec, table = build(arm, params, setup), setup.codec(), requests(params, arm)
    columns = [table[name].tolist() for name in ("prompt", "text", "seed")]

    @torch.inference_mode()
    def run(rows: slice) -> tuple[Tensor, float, float]:
        """(latents, seconds to the first decoded block, seconds in all)."""
        start = time.perf_counter()
        blocks, first = [], None
        for block in made_by.stream(*(column[rows] for column in columns)):
            codec.decode(block)
            first = first or time.perf_counter() - start
            blocks.append(block)
        return torch.cat(blocks, dim=1), first or 0.0, time.perf_counter() - start

    run(slice(0, 1))  # warm up
    first_block = min(run(slice(0, 1))[1] for _ in range(2))  # one clip alone: what a viewer waits for
    parts: list[Tensor] = []
    seconds: list[float | None] = []
    for begin in range(0, len(table), params.batch):
        latents, _, elapsed = run(slice(begin, begin + params.batch))
        parts.append(latents)
        warm = begin > 0 or len(table) <= params.batch
        seconds += [elapsed / len(latents) if warm else None] * len(latents)
        report_done(out, min(begin + params.batch, len(table)))
    timing = {
        "seconds": seconds,
        "first_block_seconds": first_block,
        "evaluations_per_clip": made_by.evaluations,
    }
    write_json(out.with_suffix(".json"), timing)
    save_tensors(out, {"latents": torch.cat(parts)})


def build(arm: str, params: Samples, setup: Setup) -> Arm:
    """Load what an arm needs."""
    if arm == "real":
        return Arm(_real(setup), 0.0)
    if arm == "teacher":
        return Arm(_teacher(params, setup), 2.0 * params.teacher_steps)
    frames, plan = setup.world.frames, setup.plan
    if arm == LONG_ARM:
        frames, plan = params.long_frames, long_plan(params, setup)
    return Arm(_student(setup, WEIGHTS[arm], plan, frames), plan.evaluations(frames))


def long_plan(params: Samples, setup: Setup) -> RolloutPlan:
    """The student's plan with the long stream's local window."""
    setup.student.check_frames(params.long_frames, "samples.long_frames")
    least, window = setup.plan.attention.least_window, params.long_window_frames
    require(window >= least, "samples.long_window_frames", window, f"at least student's sink + block = {least}")
    return replace(setup.plan, attention=replace(setup.plan.attention, window_frames=window))


def _real(setup: Setup) -> Stream:
    codec = setup.codec()

    def stream(prompts: list[str], _texts: list[str], seeds: list[int]) -> Iterator[Tensor]:
        shown = parse_all(prompts, EVAL_PROMPTS)
        yield codec.encode(real_clips(shown, setup.world, setup.world.frames, setup.seed, seeds))

    return stream


def _teacher(params: Samples, setup: Setup) -> Stream:
    model, encoder = setup.network(TEACHER), setup.encoder

    def stream(prompts: list[str], texts: list[str], seeds: list[int]) -> Iterator[Tensor]:
        noise = clip_noise(prompts, seeds, 1, setup.latent_shape)[:, 0]
        velocity = guided(model, encoder.encode(texts), encoder.encode([""]), params.guidance)
        yield sample(velocity, noise, setup.schedule, params.teacher_steps, keep=[])[:, -1]

    return stream


def _student(setup: Setup, weights: Path, plan: RolloutPlan, frames: int) -> Stream:
    model, encoder = setup.network(weights), setup.encoder
    shape = (frames, *setup.latent_shape[1:])

    def stream(prompts: list[str], texts: list[str], seeds: list[int]) -> Iterator[Tensor]:
        noise = clip_noise(prompts, seeds, plan.noises, shape)
        yield from rollout(model, model.read_text(encoder.encode(texts)), noise, plan)

    return stream
