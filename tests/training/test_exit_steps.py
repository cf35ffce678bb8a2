"""The exit steps of training rollouts: uniform, shared by a whole update, drawn per update.

Randomness is addressed by seed, update and step, so every count below is the same in every run.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.rollout import RolloutConfig, TextAt, rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.text import HashedWords
from filmstill.objectives.dmd import Objective
from filmstill.params.compute import micro_batches
from filmstill.params.distill import Distill
from filmstill.training import student_clips
from filmstill.training.distillation import Distillation
from filmstill.training.student_clips import StudentClips
from goldens import TINY, tiny
from rollouts import rollout_config

DENOISING_STEPS, BATCH, STEPS = 4, 4, 4000
UPDATES = ("critic0", "critic1", "generator")
SCHEDULE, SHAPE = FlowSchedule(5.0), (3, TINY.in_channels, 4, 6)
ENCODER = HashedWords(8, TINY.text_dim)
# 99.9 % quantiles of chi-square by degrees of freedom: a uniform draw exceeds them once in a thousand seeds.
QUANTILE = {3: 16.27, 9: 27.88}


def clips(seed: int = 0, denoising_steps: int = DENOISING_STEPS) -> StudentClips:
    config = rollout_config(SCHEDULE, denoising_steps, BlockCausal(3), 0.0)
    prompts = [f"a red {word} bobs" for word in ("one", "two", "three", "four", "five")]
    return StudentClips(tiny("causal"), config, ENCODER, prompts, SHAPE, seed, BATCH)


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return ((counts - expected).square() / expected).sum().item()


def joint_counts(first: list[int], second: list[int]) -> Tensor:
    """[DENOISING_STEPS, DENOISING_STEPS]: how often a pair of exit steps was drawn together."""
    counts = torch.zeros(DENOISING_STEPS, DENOISING_STEPS, dtype=torch.float64)
    for a, b in zip(first, second, strict=True):
        counts[a, b] += 1
    return counts


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("update", UPDATES)
def test_every_denoising_step_is_the_exit_step_equally_often(update: str, seed: int):
    source = clips(seed)
    counts = Counter(source.exit_step(index, update) for index in range(STEPS))
    assert sorted(counts) == list(range(DENOISING_STEPS))
    observed = torch.tensor([counts[step] for step in range(DENOISING_STEPS)], dtype=torch.float64)
    assert chi_square(observed, torch.full_like(observed, STEPS / DENOISING_STEPS)) < QUANTILE[3]


def test_the_updates_of_a_step_exit_independently_and_so_do_successive_steps():
    source = clips()
    drawn = {update: [source.exit_step(index, update) for index in range(STEPS)] for update in UPDATES}
    pairs = {
        "critic0, critic1": (drawn["critic0"], drawn["critic1"]),
        "critic0, generator": (drawn["critic0"], drawn["generator"]),
        "generator, the step after": (drawn["generator"][:-1], drawn["generator"][1:]),
    }
    for name, (first, second) in pairs.items():
        counts = joint_counts(first, second)
        expected = counts.sum(1, keepdim=True) * counts.sum(0, keepdim=True) / counts.sum()
        degrees = (DENOISING_STEPS - 1) ** 2
        assert chi_square(counts, expected) < QUANTILE[degrees], name


def test_an_exit_step_depends_on_seed_update_and_step_alone():
    first, other_seed = clips(), clips(seed=1)
    drawn = [first.exit_step(index, "generator") for index in range(50)]
    assert drawn == [clips().exit_step(index, "generator") for index in range(50)]
    assert drawn != [first.exit_step(index, "critic0") for index in range(50)]
    assert drawn != [other_seed.exit_step(index, "generator") for index in range(50)]


def test_a_student_of_one_denoising_step_always_exits_there():
    source = clips(denoising_steps=1)
    assert {source.exit_step(index, "generator") for index in range(20)} == {0}


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(clips, exit step) of every training rollout, in order."""
    seen: list[tuple[int, int]] = []

    def recorded(model: VideoDiT, text: TextAt, noise: Tensor, config: RolloutConfig, exits: list[int], *rest: Any):
        (exit_step,) = set(exits)
        seen.append((len(noise), exit_step))
        return rollout(model, text, noise, config, exits, *rest)

    monkeypatch.setattr(student_clips, "rollout", recorded)
    return seen


def run_of(rank: int, micro_batch: int | None, world_size: int) -> Distillation:
    """A short distillation as one rank of `world_size` runs it."""
    teacher = tiny("bidir")
    teacher.freeze()
    objective = Objective(teacher, tiny("bidir"), SCHEDULE, 3.0, ENCODER.encode([""]))
    micro = micro_batches(BATCH, micro_batch, "batch", rank, world_size)
    return Distillation(Distill(steps=6, batch=BATCH, critic_updates=2), objective, clips(), micro)


@pytest.mark.parametrize(("micro_batch", "world_size"), [(None, 1), (1, 1), (2, 2), (1, 4)])
def test_every_micro_batch_and_rank_exits_at_the_same_step(
    rolled: list[tuple[int, int]], micro_batch: int | None, world_size: int
):
    for rank in range(world_size):
        run = run_of(rank, micro_batch, world_size)
        rolled.clear()
        for index in range(run.params.steps):
            run.step(index)
        expected = [clips().exit_step(index, update) for index, update in run.updates()]
        assert len(set(expected)) > 1
        assert [exit_step for _, exit_step in rolled] == [step for step in expected for _ in run.micro_batches]
        assert sum(count for count, _ in rolled) * world_size == BATCH * len(expected)
