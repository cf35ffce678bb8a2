"""Distillation on rollouts longer than a clip: which windows are drawn, what an update reads, and what it keeps."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_training
from counting import Live
from filmstill.diffusion.rollout import rollout
from filmstill.errors import FilmstillError
from filmstill.models.rope import rope_table
from filmstill.params.distill import Distill
from filmstill.params.profile import compose
from filmstill.runtime import randomness
from filmstill.training import student_clips
from filmstill.training.distillation import Distillation
from filmstill.training.loss_windows import LossWindows
from tiny_training import ENCODER, LONG, PROMPTS, ROLLOUT, SHAPE, distillation, networks
from trainings import Cut, distil, ended

STARTS, SAMPLES = (0, 3, 6, 9), range(4)
UPDATES = ("critic0", "generator")
QUANTILE = {1: 10.83, 2: 13.82}  # 99.9 % of chi-square, by degrees of freedom
UNCHAINED = ["ode_init.clips=1"]


def long_run(activation_checkpointing: bool = False, **changes: Any) -> Distillation:
    models = networks(activation_checkpointing=activation_checkpointing)
    return distillation(models, None, **{**LONG, **changes})


def step_that_starts_at(start: int, update: str = "generator") -> int:
    clips = long_run().clips
    return next(index for index in range(200) if clips.window_start(index, update) == start)


# What is drawn


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_window_has_its_share_and_the_others_are_equally_often(update: str, seed: int):
    clips, steps = long_run().clips, 3000
    clips.seed = seed
    counts = Counter(clips.window_start(index, update) for index in range(steps))
    assert set(counts) == set(STARTS) and clips.windows.shares().keys() == set(STARTS)
    later = steps - counts[0]
    first = LONG["first_window_share"] * steps
    assert (counts[0] - first) ** 2 / first + (later - (steps - first)) ** 2 / (steps - first) < QUANTILE[1]
    assert sum((counts[start] - later / 3) ** 2 / (later / 3) for start in STARTS[1:]) < QUANTILE[2]


def test_a_window_depends_on_seed_update_and_step_alone():
    def drawn(seed: int, update: str) -> list[int]:
        clips = long_run().clips
        clips.seed = seed
        return [clips.window_start(index, update) for index in range(50)]

    assert drawn(0, "generator") == drawn(0, "generator")
    assert drawn(0, "generator") != drawn(0, "critic0")
    assert drawn(0, "generator") != drawn(1, "generator")


@pytest.mark.parametrize(("share", "starts"), [(1.0, {0}), (0.0, {3, 6, 9})])
def test_a_share_of_one_or_none_is_exact(share: float, starts: set[int]):
    clips = long_run(first_window_share=share).clips
    assert {clips.window_start(index, "generator") for index in range(200)} == starts
    assert clips.windows.shares().keys() == starts


@pytest.mark.parametrize("frames", [None, SHAPE[0]])
def test_rollouts_of_a_clips_length_draw_no_window_and_are_as_before(
    monkeypatch: pytest.MonkeyPatch, frames: int | None
):
    run = long_run(rollout_frames=frames)
    drawn: list[str] = []

    def noted(draw: Any, *address: Any) -> Any:
        drawn.append(next(part for part in address if isinstance(part, str)))
        return draw(*address)

    for name in ("normal", "uniform", "integers", "batch_indices"):
        monkeypatch.setattr(randomness, name, partial(noted, getattr(randomness, name)))
    video, text, _ = run.clips.generate(0, "generator", SAMPLES)
    assert drawn == ["distill/generator/prompts", "distill/generator/rollout", "distill/generator/exit"]
    noise = randomness.normal((ROLLOUT.noises, *SHAPE), 0, "distill/generator/rollout", 0, SAMPLES)
    read, exit_step = run.generator.read_text(text), run.clips.exit_step(0, "generator")
    assert torch.equal(video, torch.cat(list(rollout(run.generator, read, noise, ROLLOUT, exit_step)), 1))


# What an update reads


@pytest.mark.parametrize("start", STARTS)
def test_an_update_is_that_of_the_windows_frames_of_one_rollout(start: int):
    """Clip, loss and gradient of the generator, against the last frames of a rollout with the same noise."""
    index, run = step_that_starts_at(start), long_run()
    clips, generator, kept = run.clips, run.generator, []
    run.generator_optimizer.step = lambda: kept.append(gradient_of(run))
    run.critic_optimizer.step = lambda: None
    run.params.max_grad_norm = 1e9
    scalars = run.step(index)
    generator.zero_grad()
    text = ENCODER.encode([PROMPTS[number] for number in clips.drawn_prompts(index, "generator")])
    shape = (ROLLOUT.noises, start + SHAPE[0], *SHAPE[1:])
    noise = randomness.normal(shape, 0, "distill/generator/rollout", index, SAMPLES)
    window, exit_step = (start, start + SHAPE[0]), clips.exit_step(index, "generator")
    blocks = list(rollout(generator, generator.read_text(text), noise, ROLLOUT, exit_step, window))
    video = torch.cat(blocks, 1)[:, start:]
    assert video.shape[1:] == SHAPE and torch.equal(video, clips.generate(index, "generator", SAMPLES)[0])
    loss = run.objective.generator_loss(video, text, clips.draw(index, "generator", SAMPLES), torch.ones(SHAPE[0]) > 0)
    loss.backward()
    assert scalars["loss"] == loss.item() and torch.equal(kept[0], gradient_of(run)) and kept[0].abs().max() > 0


def gradient_of(run: Distillation) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in run.generator.parameters()])


def test_every_micro_batch_has_the_batchs_window(monkeypatch: pytest.MonkeyPatch):
    windows: list[object] = []

    def recorded(*given: Any) -> Any:
        windows.append(given[5])
        return rollout(*given)

    monkeypatch.setattr(student_clips, "rollout", recorded)
    run = long_run()
    run.micro_batches = tiny_training.alone(4, 1)
    for index in range(run.params.steps):
        run.step(index)
    starts = [run.clips.window_start(index, update) for index, update in run.updates()]
    assert windows == [(start, start + SHAPE[0]) for start in starts for _ in range(4)] and len(set(starts)) > 1


def test_checkpointing_changes_no_gradient_of_a_later_window():
    index, kept = step_that_starts_at(6), []
    for activation_checkpointing in (False, True):
        run = long_run(activation_checkpointing)
        run.generator_optimizer.step = lambda run=run: kept.append(gradient_of(run))
        run.step(index)
    assert torch.equal(*kept)


def test_blocks_before_the_window_are_not_kept():
    """Bytes alive after a rollout, without those of the longer context."""
    held = {}
    for start in (0, 9):
        run, live = long_run(), Live()
        rope_table.cache_clear()
        with live:
            made = run.clips.generate(step_that_starts_at(start), "generator", SAMPLES)
            rope_table.cache_clear()
            held[start] = live.now
        assert made[0].shape[1] == SHAPE[0] and made[0].requires_grad
    context = 3 * 3 * tiny_training.SHAPE[2] * tiny_training.SHAPE[3] // 4  # tokens of the three blocks before
    run = long_run()
    config = run.generator.config
    copies = 2 * 2 * config.num_layers * config.dim * 4 * len(SAMPLES)  # keys and values, for each block of the window
    assert held[9] - held[0] <= context * copies


def test_resumed_in_mid_run_is_uninterrupted_bit_for_bit(tmp_path):
    distil(Cut(tmp_path / "whole"), **LONG)
    for before in (1, 3):
        distil(Cut(tmp_path / "cut", before=before), **LONG)
        assert not (tmp_path / "cut/losses.json").exists()
    distil(Cut(tmp_path / "cut"), **LONG)
    (losses, state), (expected, other) = ended(tmp_path / "cut"), ended(tmp_path / "whole")
    assert losses == expected and state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)
    clips = long_run().clips
    assert len({clips.window_start(index, update) for index in range(4) for update in UPDATES}) > 2


# What is refused


def test_windows_of_the_parameters():
    of = partial(LossWindows.of, frames=12)
    assert of(Distill(rollout_frames=None), stride=12) == LossWindows(range(0), 0.25)
    assert list(of(Distill(rollout_frames=36), stride=12).shares()) == [0, 12, 24]
    assert list(of(Distill(rollout_frames=18), stride=3).shares()) == [0, 3, 6]
    assert list(of(Distill(rollout_frames=12), stride=3).shares()) == [0]


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("embedded", ["distill.rollout_frames=9"], "is 9, allowed: null, or at least world.frames (12)"),
        ("embedded", ["distill.rollout_frames=2"], "is 2, allowed: null or an integer in [3, 1000]"),
        ("embedded", ["distill.rollout_frames=37"], "is 37, allowed: whole blocks of the student: 3, 6, 9, …"),
        (
            "embedded",
            ["distill.rollout_frames=24", "world.period=24"],
            "is 24, allowed: world.frames (12) and a multiple of 24, the frames between the windows' starts",
        ),
        (
            "embedded",
            ["distill.rollout_frames=24", "world.period=10"],
            "world.period: is 10, allowed: a multiple of student.block_frames (3)",
        ),
        ("embedded", ["distill.first_window_share=1.5"], "is 1.5, allowed: a number in [0, 1]"),
        ("wan-mini", ["distill.rollout_frames=10"], "is 10, allowed: whole blocks of the student: 3, 6, 9, …"),
        (
            "wan-mini",
            ["world.frames=3", "distill.rollout_frames=6", "evaluate.window_frames=3"],
            "world.frames: is 3, allowed: more than a block (3), since distill.rollout_frames is more",
        ),
        ("embedded", ["world.any_phase=true"], "world.any_phase: is True, allowed: false where ode_init.clips is 2"),
    ],
)
def test_rollouts_that_no_window_ends_are_refused(profile: str, overrides: list[str], message: str):
    with pytest.raises(FilmstillError) as refused:
        compose(profile, overrides)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("profile", "overrides"),
    [
        ("embedded", ["distill.rollout_frames=12", "world.period=10", *UNCHAINED]),
        ("embedded", ["distill.rollout_frames=36", "world.period=24", *UNCHAINED]),
        ("embedded", ["distill.rollout_frames=36", "world.period=12", "student.window_frames=9"]),
        ("wan-mini", ["distill.rollout_frames=9"]),
    ],
)
def test_rollouts_that_a_window_ends_are_accepted(profile: str, overrides: list[str]):
    assert compose(profile, overrides).distill.rollout_frames is not None
