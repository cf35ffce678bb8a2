"""The rollout that trains is the rollout that serves: its blocks, its exit step and where its gradient goes."""

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import TextKV, VideoDiT
from filmstill.models.kv_cache import KVCache
from filmstill.params.model import PATCH
from goldens import TINY, tiny
from rollouts import rollout_config

PROMPTS, FRAMES = ["a red seven", "a blue nine sways", ""], 9
FRAME = (TINY.in_channels, 4, 6)
PLANS = {
    "global": rollout_config(FlowSchedule(5), 4, BlockCausal(3), 0.0),
    "window, sink, noisy context": rollout_config(FlowSchedule(3), 2, BlockCausal(3, 6, 1), 0.1),
    "independent first": rollout_config(FlowSchedule(5), 2, BlockCausal(3, independent_first=True), 0.0),
}
PLAN = PLANS["global"]
by_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())


def vectors() -> Tensor:
    """[3, 5, text_dim]: a different prompt each."""
    return torch.randn(3, 5, TINY.text_dim, generator=torch.Generator().manual_seed(1))


def noise_of(plan: RolloutConfig, frames: int = FRAMES) -> Tensor:
    return clip_noise(PROMPTS, [0, 1, 2], plan.noises, (frames, *FRAME))


def video(model: VideoDiT, text: TextKV, noise: Tensor, plan: RolloutConfig, exit_step: int | None = None) -> Tensor:
    return torch.cat(list(rollout(model, text, noise, plan, exit_step)), dim=1)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


@by_plan
@torch.no_grad()
def test_streaming_is_the_list_and_the_first_block_waits_for_no_other(plan):
    model, calls = tiny("causal"), []
    text = model.read_text(vectors())
    listed = list(rollout(model, text, noise_of(plan), plan))
    model.register_forward_hook(lambda *_: calls.append(1))
    stream = rollout(model, text, noise_of(plan), plan)
    streamed = [next(stream).clone()]
    assert len(calls) == len(plan.sigmas)  # not even its own context pass
    streamed += [block.clone() for block in stream]
    assert [b.shape[1] for b in streamed] == [end - start for start, end in plan.attention.blocks(FRAMES)]
    assert all(torch.equal(a, b) for a, b in zip(streamed, listed, strict=True))


@by_plan
@torch.no_grad()
def test_a_batch_is_each_clip_alone(plan):
    model, texts, noise = tiny("causal"), vectors(), noise_of(plan)
    together = video(model, model.read_text(texts), noise, plan)
    for i in range(3):
        alone = video(model, model.read_text(texts[i : i + 1]), noise[i : i + 1], plan)
        assert close(together[i : i + 1], alone)
    assert not close(together[0], together[1])


@by_plan
@torch.no_grad()
def test_a_longer_rollout_begins_with_the_shorter_one(plan):
    model = tiny("causal")
    text = model.read_text(vectors())
    blocks = plan.attention.blocks(13)[:-1]  # 13 frames or 10: whole blocks either way
    short = video(model, text, noise_of(plan, blocks[2][1]), plan)
    long = video(model, text, noise_of(plan, blocks[-1][1]), plan)
    assert long.shape[1] > short.shape[1]
    assert torch.equal(long[:, : short.shape[1]], short)


@torch.no_grad()
def test_the_emitted_block_is_the_denoised_one_written_out():
    """One block by hand: start from noise, predict x0, noise it again at the next node."""
    model, noise = tiny("causal"), noise_of(PLAN, 3)
    text = model.read_text(vectors())
    x0 = torch.zeros_like(noise[:, 0])  # at sigma 1 nothing of it is left
    for step, sigma in enumerate([1.0, 0.9375, 2.5 / 3, 0.625]):
        level = torch.full((3,), sigma, dtype=torch.float64)
        xt = add_noise(x0, noise[:, step], level)
        x0 = velocity_to_x0(model(xt, level * TIMESTEPS, text, BlockCausal(3)), xt, level)
    assert close(video(model, text, noise, PLAN), x0)


@pytest.mark.parametrize("exit_step", range(4))
def test_exit_step_emits_that_prediction_with_a_gradient(exit_step):
    """The k-th prediction is the last one of a plan that stops at k."""
    model, noise = tiny("causal"), noise_of(PLAN)
    emitted = video(model, model.read_text(vectors()), noise, PLAN, exit_step)
    assert emitted.requires_grad
    with torch.no_grad():
        stops = RolloutConfig(PLAN.sigmas[: exit_step + 1], PLAN.attention)
        prediction = video(model, model.read_text(vectors()), noise[:, : exit_step + 1], stops)
    assert torch.equal(emitted, prediction)


@torch.no_grad()
def test_the_last_exit_step_is_what_serving_emits():
    model, noise = tiny("causal"), noise_of(PLAN)
    text = model.read_text(vectors())
    assert torch.equal(video(model, text, noise, PLAN, 3), video(model, text, noise, PLAN))
    assert not torch.equal(video(model, text, noise, PLAN, 2), video(model, text, noise, PLAN))


def gradients(model: VideoDiT, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def second_block(model: VideoDiT, text: TextKV, noise: Tensor, detach: bool) -> Tensor:
    """Block 1 at exit step 0, over a context that is made first: detached, or (as released) with its graph."""
    level = torch.ones(3, dtype=torch.float64)
    first = velocity_to_x0(model(noise[:, 0, :3], level * TIMESTEPS, text), noise[:, 0, :3], level)
    xt = noise[:, 0, 3:6]
    if detach:
        cache = KVCache(BlockCausal(3), TINY.num_layers)
        with torch.no_grad():
            model.remember(first.detach(), torch.zeros(3), text, cache)
        velocity = model(xt, level * TIMESTEPS, text, cache=cache)
    else:
        t = torch.tensor([0.0] * 3 + [TIMESTEPS] * 3).expand(3, 6)
        velocity = model(torch.cat([first, xt], 1), t, text, BlockCausal(3))[:, 3:]
    return velocity_to_x0(velocity, xt, level)


def test_a_later_blocks_loss_does_not_reach_into_the_cached_context():
    """Defect 1: the gradient is that of a context computed beforehand, not that of a context with its graph."""
    model, noise = tiny("causal"), noise_of(PLAN, 6)
    ours = list(rollout(model, model.read_text(vectors()), noise, PLAN, exit_step=0))[1]
    gradient = gradients(model, ours.square().sum())
    detached = second_block(model, model.read_text(vectors()), noise, detach=True)
    attached = second_block(model, model.read_text(vectors()), noise, detach=False)
    assert close(ours, detached)
    assert close(ours, attached)  # the same number …
    expected, leaking = gradients(model, detached.square().sum()), gradients(model, attached.square().sum())
    assert gradient.keys() == expected.keys()
    assert all(close(gradient[name], expected[name]) for name in expected)
    size = torch.stack([g.norm() for g in gradient.values()]).norm()
    leak = torch.stack([(gradient[name] - leaking[name]).norm() for name in gradient]).norm()
    assert leak > 1e-2 * size  # … but another gradient


def test_backward_through_every_block_sums_the_blocks_own_gradients():
    """Each block's graph stands alone (defect 1: the released one frees buffers that a later block needs)."""
    model, noise = tiny("causal"), noise_of(PLAN)
    whole = gradients(model, video(model, model.read_text(vectors()), noise, PLAN, 1).square().sum())
    model.zero_grad()
    for block in rollout(model, model.read_text(vectors()), noise, PLAN, 1):
        block.square().sum().backward(retain_graph=True)  # the prompt's keys and values are shared
    assert all(close(p.grad, whole[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("exit_step", range(4))
def test_the_prompt_gets_a_gradient_at_every_exit_step(exit_step):
    """Defect 2: text embedding and cross-attention keys and values learn whatever the exit step."""
    model = tiny("causal")
    text = vectors().requires_grad_()
    gradient = gradients(model, video(model, model.read_text(text), noise_of(PLAN), PLAN, exit_step).square().sum())
    reading = [n for n in gradient if n.startswith("text_embedding") or ".cross_attn.k." in n or ".cross_attn.v." in n]
    assert len(reading) == 4 + 2 * 2 * TINY.num_layers
    for name in reading:
        assert gradient[name].abs().max() > 1e-4, name
    assert all(text.grad[i].abs().max() > 0 for i in range(3))


@torch.no_grad()
def test_another_prompt_gives_another_video():
    """Defect 3: nothing of a rollout's prompt outlives it."""
    model, noise = tiny("causal"), noise_of(PLAN)
    first = video(model, model.read_text(vectors()), noise, PLAN)
    other = video(model, model.read_text(vectors().flip(0)), noise, PLAN)
    again = video(model, model.read_text(vectors()), noise, PLAN)
    assert (first[0] - other[0]).abs().max() > 1e-3
    assert torch.equal(first, again)


@torch.no_grad()
def test_context_noise_changes_what_follows_and_not_what_is_emitted():
    model = tiny("causal")
    text = model.read_text(vectors())
    clean, noisy = (rollout_config(FlowSchedule(5), 2, BlockCausal(3), sigma) for sigma in (0.0, 0.2))
    assert (clean.noises, noisy.noises) == (2, 3)
    noise = noise_of(noisy)
    a, b = video(model, text, noise[:, :2], clean), video(model, text, noise, noisy)
    assert torch.equal(a[:, :3], b[:, :3])
    assert (a[:, 3:] - b[:, 3:]).abs().max() > 1e-4


def test_evaluations_count_every_pass_over_the_clip():
    """Four blocks of four steps, and three context passes: no later block reads the last."""
    calls = []
    model = tiny("causal")
    frame_tokens = FRAME[1] * FRAME[2] // PATCH**2
    model.blocks[0].register_forward_hook(lambda _module, given, _out: calls.append(given[0].shape[1] / frame_tokens))
    with torch.no_grad():
        video(model, model.read_text(vectors()), noise_of(PLAN, 12), PLAN)
    assert sum(calls) / 12 == PLAN.evaluations(12) == 4.75
