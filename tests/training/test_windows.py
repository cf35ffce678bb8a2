"""`window_frames`, `sink_frames` and `context_noise` in training, against rollouts that keep no cache."""

from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.prompts_by_frame import TextKV
from filmstill.models.text import HashedWords
from filmstill.objectives.dmd import Objective
from filmstill.params.distill import Distill
from filmstill.runtime import randomness
from filmstill.training import student_clips
from filmstill.training.distillation import Distillation
from filmstill.training.student_clips import StudentClips
from goldens import TINY, tiny
from rollouts import rollout_config

SCHEDULE, FRAMES, BATCH, DENOISING_STEPS = FlowSchedule(5.0), 8, 2, 3
SHAPE = (FRAMES, TINY.in_channels, 4, 6)
ENCODER = HashedWords(8, TINY.text_dim)
PROMPTS = [f"a red {word} bobs" for word in ("one", "two", "three", "four", "five")]
EVERYTHING = BlockCausal(2)
WINDOWS = {"window": BlockCausal(2, 4), "uneven window": BlockCausal(2, 5), "window and sink": BlockCausal(2, 5, 1)}
# Which frames (columns) each block of two frames (rows) sees.
SEEN = {
    EVERYTHING: ("11......", "1111....", "111111..", "11111111"),
    WINDOWS["window"]: ("11......", "1111....", "..1111..", "....1111"),
    WINDOWS["uneven window"]: ("11......", "1111....", ".11111..", "...11111"),
    WINDOWS["window and sink"]: ("11......", "1111....", "1.1111..", "1...1111"),
}
CLOSE = 1e-5  # of the largest number: kernels of other shapes sum in another order
by_window = pytest.mark.parametrize("attention", WINDOWS.values(), ids=WINDOWS.keys())
by_attention = pytest.mark.parametrize("attention", SEEN, ids=["everything", *WINDOWS])
by_context_noise = pytest.mark.parametrize("context_noise", [0.0, 0.1])


def distillation(
    attention: BlockCausal, context_noise: float = 0.0, activation_checkpointing: bool = False
) -> Distillation:
    """A run of tiny networks whose gradients are not clipped."""
    generator, critic, teacher = tiny("causal"), tiny("bidir"), tiny("bidir")
    generator.activation_checkpointing = activation_checkpointing
    teacher.freeze()
    params = Distill(steps=20, batch=BATCH, critic_updates=1, lr_decay_fraction=0.0, max_grad_norm=1e9)
    objective = Objective(teacher, critic, SCHEDULE, 3.0, ENCODER.encode([""]))
    config = rollout_config(SCHEDULE, DENOISING_STEPS, attention, context_noise)
    clips = StudentClips(generator, config, ENCODER, PROMPTS, SHAPE, 0, params.batch)
    return Distillation(params, objective, clips, [range(BATCH)])


def step_that_exits_at(exit_step: int, update: str = "generator") -> int:
    clips = distillation(EVERYTHING).clips
    return next(index for index in range(20) if clips.exit_step(index, update) == exit_step)


def trained(run: Distillation, index: int) -> tuple[dict[str, float], Tensor]:
    """(scalars, the generator's gradient) of step `index`, from the weights as they are: none is updated."""
    kept: list[Tensor] = []
    run.critic_optimizer.step = lambda: None
    run.generator_optimizer.step = lambda: kept.append(gradient_of(run.generator))
    return run.step(index), kept[0]


def gradient_of(model: VideoDiT) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters()])


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape and theirs.abs().max() > 0
    assert (ours - theirs).abs().max() <= CLOSE * theirs.abs().max()


# The reference: one masked forward pass over the whole sequence per block and denoising step.


class Written:
    """An attention by its table SEEN, for the mask of a whole sequence."""

    def __init__(self, rows: tuple[str, ...]) -> None:
        self.table = torch.tensor([[mark == "1" for mark in row] for row in rows]).repeat_interleave(2, 0)

    def causal_mask(self, frames: int) -> Tensor:
        return self.table[:frames, :frames]

    def shifted_blocks(self, frames: int) -> list:
        return []


@contextmanager
def detached_context(model: VideoDiT, tokens: int) -> Any:
    """Keys and values of the first `tokens` carry no gradient, as those of a cache."""

    def detach(_module: object, _given: object, out: Tensor) -> Tensor:
        return torch.cat([out[:, :tokens].detach(), out[:, tokens:]], 1)

    readers = [reader for block in model.layers for reader in (block.self_attn.norm_k, block.self_attn.v)]
    handles = [reader.register_forward_hook(detach) for reader in readers]
    yield
    for handle in handles:
        handle.remove()


def denoised(model: VideoDiT, text: TextKV, context: Tensor, xt: Tensor, sigma: float, config: RolloutConfig) -> Tensor:
    """x0 of a block xt [B, f, C, H, W] after `context` [B, n, C, H, W]: the masked pass over both."""
    before, frames = context.shape[1], xt.shape[1]
    sigmas = torch.tensor([config.context_sigma] * before + [sigma] * frames, dtype=torch.float64).expand(len(xt), -1)
    frame_tokens = xt.shape[3] * xt.shape[4] // 4
    with detached_context(model, before * frame_tokens):
        velocity = model(torch.cat([context, xt], 1), sigmas * TIMESTEPS, text, Written(SEEN[config.attention]))
    return velocity_to_x0(velocity[:, before:], xt, sigmas[:, before:])


def rolled_without_cache(model: VideoDiT, text: TextKV, noise: Tensor, config: RolloutConfig, exit_step: int) -> Tensor:
    """The clip [B, F, C, H, W] of a training rollout."""
    context, blocks = noise[:, 0, :0], []
    for start in range(0, FRAMES, 2):
        block_noise = noise[:, :, start : start + 2]
        xt = block_noise[:, 0]
        with torch.no_grad():
            for step in range(exit_step):
                x0 = denoised(model, text, context, xt, config.sigmas[step], config)
                level = torch.full((len(xt),), config.sigmas[step + 1], dtype=torch.float64)
                xt = add_noise(x0, block_noise[:, step + 1], level)
        blocks.append(denoised(model, text, context, xt, config.sigmas[exit_step], config))
        finished = blocks[-1].detach()
        if config.context_sigma:
            level = torch.full((len(xt),), config.context_sigma, dtype=torch.float64)
            finished = add_noise(finished, block_noise[:, -1], level)
        context = torch.cat([context, finished], 1)
    return torch.cat(blocks, 1)


def noise_of(config: RolloutConfig, index: int, update: str = "generator") -> Tensor:
    """[B, noises, F, C, H, W]: the address that StudentClips draws a rollout's noise from."""
    return randomness.normal((config.noises, *SHAPE), 0, f"distill/{update}/rollout", index, range(BATCH))


@by_context_noise
@by_attention
@pytest.mark.parametrize("exit_step", [0, DENOISING_STEPS - 1])
def test_an_update_is_that_of_one_masked_pass_per_block(attention: BlockCausal, context_noise: float, exit_step: int):
    """Loss and gradient of the generator: the cache holds what the mask of the whole sequence shows, and no graph."""
    index, run = step_that_exits_at(exit_step), distillation(attention, context_noise)
    scalars, gradient = trained(run, index)
    run.generator.zero_grad()
    prompts = [PROMPTS[number] for number in run.clips.drawn_prompts(index, "generator")]
    text = ENCODER.encode(prompts)
    config = run.clips.rollout_config
    video = rolled_without_cache(
        run.generator, run.generator.read_text(text), noise_of(config, index), config, exit_step
    )
    draw, counted = run.clips.draw(index, "generator", range(BATCH)), torch.ones(FRAMES, dtype=torch.bool)
    loss = run.objective.generator_loss(video, text, draw, counted)
    loss.backward()
    assert scalars["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert_close(gradient, gradient_of(run.generator))


@by_window
def test_a_window_changes_the_blocks_that_lose_a_frame_and_no_other(attention: BlockCausal):
    index = step_that_exits_at(1)
    windowed, whole = (
        distillation(pattern).clips.generate(index, "generator", range(BATCH))[0] for pattern in (attention, EVERYTHING)
    )
    same = [torch.equal(windowed[:, start : start + 2], whole[:, start : start + 2]) for start in range(0, FRAMES, 2)]
    assert same == [row == full for row, full in zip(SEEN[attention], SEEN[EVERYTHING], strict=True)]


@by_context_noise
@by_attention
def test_at_the_last_exit_step_training_has_the_loss_of_serving(attention: BlockCausal, context_noise: float):
    run = distillation(attention, context_noise)
    config, generator = run.clips.rollout_config, run.generator
    for exit_step, same in ((DENOISING_STEPS - 1, True), (DENOISING_STEPS - 2, False)):
        index = step_that_exits_at(exit_step)
        video, text, counted = run.clips.generate(index, "generator", range(BATCH))
        served = torch.cat(list(rollout(generator, generator.read_text(text), noise_of(config, index), config)), 1)
        draw = run.clips.draw(index, "generator", range(BATCH))
        losses = [run.objective.generator_loss(clip, text, draw, counted) for clip in (video, served)]
        assert torch.equal(*losses) == same


@by_attention
def test_checkpointing_changes_no_gradient_under_a_window(attention: BlockCausal):
    """The backward pass reads the context again, when later blocks have moved the cache on."""
    index = step_that_exits_at(1)
    (kept, plain), (again, checkpointed) = (
        trained(distillation(attention, 0.1, checkpointing), index) for checkpointing in (False, True)
    )
    assert kept == again and torch.equal(plain, checkpointed)


# The noise of finished context


def with_other_last_noise(frames: slice, model: VideoDiT, text: TextKV, noise: Tensor, *rest: Any) -> Any:
    """A rollout whose last noise is another one in these frames."""
    noise = noise.clone()
    noise[:, -1, frames] = -noise[:, -1, frames]
    return rollout(model, text, noise, *rest)


@pytest.mark.parametrize(
    ("context_noise", "frames", "enters"),
    [
        (0.0, slice(None), False),
        (0.1, slice(None), True),
        (0.1, slice(0, 2), True),
        (0.1, slice(6, 8), False),  # the last block is no block's context
    ],
)
def test_the_last_noise_enters_an_update_only_as_the_noise_of_context(
    monkeypatch: pytest.MonkeyPatch, context_noise: float, frames: slice, enters: bool
):
    """At the first exit step nothing is noised again, so the last noise has no other use."""
    index = step_that_exits_at(0)
    scalars, gradient = trained(distillation(EVERYTHING, context_noise), index)
    monkeypatch.setattr(student_clips, "rollout", partial(with_other_last_noise, frames))
    others, other_gradient = trained(distillation(EVERYTHING, context_noise), index)
    assert (scalars["loss"] != others["loss"]) == enters
    assert torch.equal(gradient, other_gradient) != enters


def test_context_noise_takes_one_noise_more_and_leaves_the_first_block():
    index = step_that_exits_at(1)
    clean, noisy = (distillation(EVERYTHING, sigma).clips for sigma in (0.0, 0.1))
    assert (clean.rollout_config.noises, noisy.rollout_config.noises) == (DENOISING_STEPS, DENOISING_STEPS + 1)
    config, model = noisy.rollout_config, noisy.generator
    noise = noise_of(config, index)
    text = model.read_text(ENCODER.encode(PROMPTS[:BATCH]))
    with_noise = torch.cat(list(rollout(model, text, noise, config, 1)), 1)
    without = torch.cat(list(rollout(model, text, noise[:, :-1], clean.rollout_config, 1)), 1)
    assert torch.equal(with_noise[:, :2], without[:, :2])
    assert all(not torch.equal(with_noise[:, f], without[:, f]) for f in range(2, FRAMES))
