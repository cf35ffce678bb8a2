"""The rollout in training and in serving: its blocks, its exit step and its gradient."""

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.kv_cache import KVCache
from filmstill.models.prompts_by_frame import TextKV
from filmstill.params.model import PATCH
from goldens import TINY, tiny
from rollouts import rollout_config

PROMPTS, FRAMES = ["a red star", "a blue sun sways", ""], 9
FRAME = (TINY.in_channels, 4, 6)
CONFIGS = {
    "global": rollout_config(FlowSchedule(5), 4, BlockCausal(3), 0.0),
    "window, sink, noisy context": rollout_config(FlowSchedule(3), 2, BlockCausal(3, 6, 1), 0.1),
    "independent first": rollout_config(FlowSchedule(5), 2, BlockCausal(3, independent_first=True), 0.0),
}
CONFIG = CONFIGS["global"]
by_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def vectors() -> Tensor:
    """Token vectors [3, 5, text_dim] of three different prompts."""
    return torch.randn(3, 5, TINY.text_dim, generator=torch.Generator().manual_seed(1))


def noise_of(config: RolloutConfig, frames: int = FRAMES) -> Tensor:
    return clip_noise(PROMPTS, [0, 1, 2], config.noises, (frames, *FRAME))


def video(model: VideoDiT, text: TextKV, noise: Tensor, config: RolloutConfig, exit_step: int | None = None) -> Tensor:
    return torch.cat(list(rollout(model, text, noise, config, exit_step)), dim=1)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


@by_config
@torch.no_grad()
def test_streaming_is_the_list_and_the_first_block_waits_for_no_other(config):
    model, calls = tiny("causal"), []
    text = model.read_text(vectors())
    listed = list(rollout(model, text, noise_of(config), config))
    model.register_forward_hook(lambda *_: calls.append(1))
    stream = rollout(model, text, noise_of(config), config)
    streamed = [next(stream).clone()]
    assert len(calls) == len(config.sigmas)  # without its own context pass
    streamed += [block.clone() for block in stream]
    assert [b.shape[1] for b in streamed] == [end - start for start, end in config.attention.blocks(FRAMES)]
    assert all(torch.equal(a, b) for a, b in zip(streamed, listed, strict=True))


@by_config
@torch.no_grad()
def test_a_batch_is_each_clip_alone(config):
    model, texts, noise = tiny("causal"), vectors(), noise_of(config)
    together = video(model, model.read_text(texts), noise, config)
    for i in range(3):
        alone = video(model, model.read_text(texts[i : i + 1]), noise[i : i + 1], config)
        assert close(together[i : i + 1], alone)
    assert not close(together[0], together[1])


@by_config
@torch.no_grad()
def test_a_longer_rollout_begins_with_the_shorter_one(config):
    model = tiny("causal")
    text = model.read_text(vectors())
    blocks = list(config.attention.blocks(13))[:-1]  # 13 or 10 frames, which are complete blocks
    short = video(model, text, noise_of(config, blocks[2][1]), config)
    long = video(model, text, noise_of(config, blocks[-1][1]), config)
    assert long.shape[1] > short.shape[1]
    assert torch.equal(long[:, : short.shape[1]], short)


@torch.no_grad()
def test_the_emitted_block_is_the_denoised_one_written_out():
    """One block written out: start from noise, predict x0, noise it again at the next sigma."""
    model, noise = tiny("causal"), noise_of(CONFIG, 3)
    text = model.read_text(vectors())
    x0 = torch.zeros_like(noise[:, 0])  # has weight 0 at sigma 1
    for step, sigma in enumerate([1.0, 0.9375, 2.5 / 3, 0.625]):
        level = torch.full((3,), sigma, dtype=torch.float64)
        xt = add_noise(x0, noise[:, step], level)
        x0 = velocity_to_x0(model(xt, level * TIMESTEPS, text, BlockCausal(3)), xt, level)
    assert close(video(model, text, noise, CONFIG), x0)


@pytest.mark.parametrize("exit_step", range(4))
def test_exit_step_emits_that_prediction_with_a_gradient(exit_step):
    """The prediction of exit step k equals the last one of a rollout with k + 1 steps."""
    model, noise = tiny("causal"), noise_of(CONFIG)
    emitted = video(model, model.read_text(vectors()), noise, CONFIG, exit_step)
    assert emitted.requires_grad
    with torch.no_grad():
        stops = RolloutConfig(CONFIG.sigmas[: exit_step + 1], CONFIG.attention)
        prediction = video(model, model.read_text(vectors()), noise[:, : exit_step + 1], stops)
    assert torch.equal(emitted, prediction)


@torch.no_grad()
def test_the_last_exit_step_is_what_serving_emits():
    model, noise = tiny("causal"), noise_of(CONFIG)
    text = model.read_text(vectors())
    assert torch.equal(video(model, text, noise, CONFIG, 3), video(model, text, noise, CONFIG))
    assert not torch.equal(video(model, text, noise, CONFIG, 2), video(model, text, noise, CONFIG))


def gradients(model: VideoDiT, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def second_block(model: VideoDiT, text: TextKV, noise: Tensor, detach: bool) -> Tensor:
    """Block 1 at exit step 0, on a context that is detached or, as in the released code, keeps its graph."""
    level = torch.ones(3, dtype=torch.float64)
    first = velocity_to_x0(model(noise[:, 0, :3], level * TIMESTEPS, text), noise[:, 0, :3], level)
    xt = noise[:, 0, 3:6]
    if detach:
        cache = KVCache(BlockCausal(3), 6)
        with torch.no_grad():
            model.remember(first.detach(), torch.zeros(3), text, cache)
        velocity = model(xt, level * TIMESTEPS, text, cache=cache)
    else:
        t = torch.tensor([0.0] * 3 + [TIMESTEPS] * 3).expand(3, 6)
        velocity = model(torch.cat([first, xt], 1), t, text, BlockCausal(3))[:, 3:]
    return velocity_to_x0(velocity, xt, level)


def test_a_later_blocks_loss_does_not_reach_into_the_cached_context():
    """Defect 1: the gradient is that of a detached context, not of a context with its graph."""
    model, noise = tiny("causal"), noise_of(CONFIG, 6)
    ours = list(rollout(model, model.read_text(vectors()), noise, CONFIG, exit_step=0))[1]
    gradient = gradients(model, ours.square().sum())
    detached = second_block(model, model.read_text(vectors()), noise, detach=True)
    attached = second_block(model, model.read_text(vectors()), noise, detach=False)
    assert close(ours, detached)
    assert close(ours, attached)  # the same output …
    expected, leaking = gradients(model, detached.square().sum()), gradients(model, attached.square().sum())
    assert gradient.keys() == expected.keys()
    assert all(close(gradient[name], expected[name]) for name in expected)
    size = torch.stack([g.norm() for g in gradient.values()]).norm()
    leak = torch.stack([(gradient[name] - leaking[name]).norm() for name in gradient]).norm()
    assert leak > 1e-2 * size  # … but another gradient


def test_backward_through_every_block_sums_the_blocks_own_gradients():
    """The graphs of blocks are independent (defect 1: the released code frees buffers that a later block needs)."""
    model, noise = tiny("causal"), noise_of(CONFIG)
    whole = gradients(model, video(model, model.read_text(vectors()), noise, CONFIG, 1).square().sum())
    model.zero_grad()
    for block in rollout(model, model.read_text(vectors()), noise, CONFIG, 1):
        block.square().sum().backward(retain_graph=True)  # the prompt's keys and values are shared
    assert all(close(p.grad, whole[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("exit_step", range(4))
def test_the_prompt_gets_a_gradient_at_every_exit_step(exit_step):
    """Defect 2: text embedding and cross-attention keys and values have a gradient at every exit step."""
    model = tiny("causal")
    text = vectors().requires_grad_()
    gradient = gradients(model, video(model, model.read_text(text), noise_of(CONFIG), CONFIG, exit_step).square().sum())
    reading = [n for n in gradient if n.startswith("text_embedding") or ".cross_attn.k." in n or ".cross_attn.v." in n]
    assert len(reading) == 4 + 2 * 2 * TINY.num_layers
    for name in reading:
        assert gradient[name].abs().max() > 1e-4, name
    assert all(text.grad[i].abs().max() > 0 for i in range(3))


@torch.no_grad()
def test_another_prompt_gives_another_video():
    """Defect 3: a rollout leaves nothing of its prompt behind."""
    model, noise = tiny("causal"), noise_of(CONFIG)
    first = video(model, model.read_text(vectors()), noise, CONFIG)
    other = video(model, model.read_text(vectors().flip(0)), noise, CONFIG)
    again = video(model, model.read_text(vectors()), noise, CONFIG)
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
    """Four blocks of four steps, and three context passes, since the last block is not context of another."""
    calls = []
    model = tiny("causal")
    frame_tokens = FRAME[1] * FRAME[2] // PATCH**2
    model.blocks[0].register_forward_hook(lambda _module, given, _out: calls.append(given[0].shape[1] / frame_tokens))
    with torch.no_grad():
        video(model, model.read_text(vectors()), noise_of(CONFIG, 12), CONFIG)
    assert sum(calls) / 12 == CONFIG.evaluations(12) == 4.75
