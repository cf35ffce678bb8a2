"""A first block with other denoising steps than those of the others: in the rollout, in training, in params."""

from dataclasses import replace

import pytest
import torch

from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal
from filmstill.params.profile import compose
from filmstill.params.student import Student
from filmstill.training.ode_init import draw_nodes
from filmstill.training.student_clips import StudentClips
from goldens import TINY, tiny
from tiny_training import ENCODER, PROMPTS, SCHEDULE, SHAPE

STUDENT = Student(denoising_steps=2, first_denoising_steps=4, window_frames=6)
CONFIG = RolloutConfig.of(SCHEDULE, STUDENT)
FEW, MANY = (
    RolloutConfig.of(SCHEDULE, replace(STUDENT, denoising_steps=steps, first_denoising_steps=None)) for steps in (2, 4)
)


@torch.no_grad()
def test_the_first_block_has_its_steps_and_the_others_theirs():
    model = tiny("causal")
    text = model.read_text(ENCODER.encode(PROMPTS[:2]))
    noise = torch.randn(2, 4, 9, TINY.in_channels, 4, 6, generator=torch.Generator().manual_seed(0))
    first, *others = rollout(model, text, noise, CONFIG)
    assert torch.equal(first, next(iter(rollout(model, text, noise, MANY))))
    _, *expected = rollout(model, text, noise[:, :2], FEW, given=first)
    assert all(map(torch.equal, others, expected))
    assert not torch.equal(first, next(iter(rollout(model, text, noise[:, :2], FEW))))


def test_noise_and_evaluations_count_both():
    assert (CONFIG.noises, FEW.noises, MANY.noises) == (4, 2, 4)
    assert CONFIG.evaluations(9) == pytest.approx((3 * 4 + 6 * 2 + 6) / 9)
    assert STUDENT.mean_steps(3) == pytest.approx((4 + 2 + 2) / 3)


def test_an_update_exits_the_first_block_as_far_as_the_others():
    clips = StudentClips(tiny("causal"), CONFIG, ENCODER, PROMPTS, SHAPE, 0, 4)
    exits = {tuple(clips.exit_steps(index, "generator")) for index in range(50)}
    assert exits == {(1, 0), (3, 1)}
    every = replace(CONFIG, sigmas=MANY.sigmas, first_sigmas=FEW.sigmas)
    exits = {
        tuple(StudentClips(tiny("causal"), every, ENCODER, PROMPTS, SHAPE, 0, 4).exit_steps(i, "x")) for i in range(99)
    }
    assert exits == {(0, 0), (0, 1), (1, 2), (1, 3)}


def test_the_nodes_of_each_block_are_those_of_its_steps():
    nodes = torch.cat([draw_nodes(BlockCausal(3), 9, (4, 2), 0, step, range(8)) for step in range(50)])
    first, middle, last = (set(nodes[:, frame].tolist()) for frame in (0, 3, 6))
    assert (first, middle, last) == ({0, 1, 2, 3, 4}, {0, 2, 4}, {0, 2})
    grid = FlowSchedule(5.0).nodes(4)
    assert torch.equal(grid[::2], FlowSchedule(5.0).nodes(2)), "nodes of both are counted on one grid"


def test_steps_that_the_pairs_do_not_hold_are_refused():
    with pytest.raises(
        FilmstillError, match=r"student.first_denoising_steps: is 3, allowed: a divisor of ode_pairs.nodes"
    ):
        compose("embedded", ["student.first_denoising_steps=3"])
