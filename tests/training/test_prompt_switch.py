"""Rollouts whose prompt changes in training, and exit steps by block: what is drawn, and what an update reads."""

import pytest
import torch

from filmstill.diffusion.rollout import rollout
from filmstill.models.attention import BlockCausal
from filmstill.runtime import randomness
from filmstill.training.loss_windows import LossWindows
from filmstill.training.student_clips import StudentClips
from goldens import tiny
from rollouts import rollout_config
from tiny_training import ENCODER, LONG, PROMPTS, SCHEDULE, SHAPE

SAMPLES, STEPS, BLOCKS = range(4), 400, BlockCausal(3)
WINDOWS = LossWindows(range(3, 10, 3), LONG["first_window_share"])


def clips(attention: BlockCausal = BLOCKS, shape: tuple[int, ...] = SHAPE, **options) -> StudentClips:
    config = rollout_config(SCHEDULE, 2, attention, 0.0)
    return StudentClips(tiny("causal"), config, ENCODER, PROMPTS, shape, 0, 4, WINDOWS, **options)


def test_a_change_is_at_a_block_before_the_window_or_at_its_start():
    source = clips(prompt_switch=0.5)
    changes = [(source.window_start(i, "generator"), source.switch_frame(i, "generator")) for i in range(STEPS)]
    assert all(switch is None for start, switch in changes if not start)
    later = [(start, switch) for start, switch in changes if start]
    drawn = {(start, switch) for start, switch in later if switch is not None}
    assert drawn == {(3, 3), (6, 3), (6, 6), (9, 3), (9, 6), (9, 9)}
    assert 0.4 < sum(switch is not None for _, switch in later) / len(later) < 0.6
    assert changes == [(clips(prompt_switch=0.5).window_start(i, "generator"), s) for i, (_, s) in enumerate(changes)]


def test_without_a_share_nothing_changes_and_nothing_more_is_drawn(monkeypatch: pytest.MonkeyPatch):
    never = clips()
    monkeypatch.setattr(randomness, "uniform", lambda *address: torch.zeros(1, dtype=torch.float64))
    assert [never.switch_frame(index, "generator") for index in range(50)] == [None] * 50


def test_an_update_reads_both_prompts_and_has_the_loss_of_the_second():
    source = clips(prompt_switch=1.0)
    index = next(
        i for i in range(STEPS) if (source.window_start(i, "generator"), source.switch_frame(i, "generator")) == (6, 3)
    )
    video, text, _ = source.generate(index, "generator", SAMPLES)
    second = ENCODER.encode(source.prompts_of(index, "generator"))
    first = ENCODER.encode(source.first_prompts(index, "generator"))
    assert torch.equal(text, second) and not torch.equal(first, second)
    model, config = source.generator, source.rollout_config
    read = [model.read_text(prompts) for prompts in (first, second)]
    shape = (config.noises, 12, *SHAPE[1:])
    noise = randomness.normal(shape, 0, "distill/generator/rollout", index, SAMPLES)
    exits = source.exit_steps(index, "generator")
    blocks = list(rollout(model, lambda frame: read[frame >= 3], noise, config, exits, (6, 12)))
    assert torch.equal(video, torch.cat(blocks, 1)[:, 6:])
    both = source.prompts_of(index, "generator") + source.first_prompts(index, "generator")
    assert source._all_prompts(index, "generator") == both


def test_every_block_has_an_exit_step_of_its_own():
    together, apart = clips(), clips(exit_per_block=True)
    drawn = [apart.exit_steps(index, "generator") for index in range(STEPS)]
    assert {len(set(exits)) for exits in drawn} == {1, 2}
    last = [exits[-1] for exits in drawn]
    assert 0.4 < sum(last) / STEPS < 0.6
    assert all(len(set(together.exit_steps(index, "generator"))) == 1 for index in range(50))
    index = next(i for i in range(STEPS) if apart.window_start(i, "generator") == 0 and len(set(drawn[i])) == 2)
    video, text, _ = apart.generate(index, "generator", SAMPLES)
    noise = randomness.normal((2, *SHAPE), 0, "distill/generator/rollout", index, SAMPLES)
    read = apart.generator.read_text(text)
    by_block = [
        list(rollout(apart.generator, read, noise, apart.rollout_config, exits))
        for exits in (drawn[index], [drawn[index][0]] * 2)
    ]
    assert torch.equal(video, torch.cat(by_block[0], 1))
    assert torch.equal(by_block[0][0], by_block[1][0]) and not torch.equal(by_block[0][1], by_block[1][1])


def test_a_window_after_an_independent_first_frame_begins_with_the_last_frame_before_it():
    """Blocks 1, 3, 3, …: the window's first frame is context, without a gradient, as a picture is."""
    source = clips(BlockCausal(3, independent_first=True), (7, *SHAPE[1:]))
    index = next(i for i in range(STEPS) if source.window_start(i, "generator") == 6)
    video, _, _ = source.generate(index, "generator", SAMPLES)
    assert video.shape[1] == 7
    weight = source.generator.head.head.weight
    for frames, has_gradient in ((slice(0, 1), False), (slice(1, 4), True), (slice(4, 7), True)):
        (gradient,) = torch.autograd.grad(video[:, frames].square().sum(), weight, retain_graph=True)
        assert bool(gradient.abs().max() > 0) == has_gradient
