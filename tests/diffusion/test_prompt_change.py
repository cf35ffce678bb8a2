"""A prompt that changes in mid-stream: what becomes of the context, and of what was made before."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, rollout, rollout_stream
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.kv_cache import KVCache
from filmstill.models.prompts_by_frame import TextByFrame
from goldens import TINY, tiny
from rollouts import rollout_config

FRAMES, CHANGE, FRAME = 21, 12, (TINY.in_channels, 4, 6)
ATTENTIONS = {
    "global": BlockCausal(3),
    "window": BlockCausal(3, 6),
    "window and sink": BlockCausal(3, 7, 1),
    "relative": BlockCausal(3, 7, 1, relative=True),
    "single frames": BlockCausal(1, 4, 1, relative=True),
}
CONFIGS = [
    replace(rollout_config(FlowSchedule(3), 2, attention, sigma), prompt_change=change)
    for attention, sigma in zip(ATTENTIONS.values(), (0.0, 0.1, 0.0, 0.1, 0.0), strict=True)
    for change in ("keep", "recache", "cut")
]
by_config = pytest.mark.parametrize("config", CONFIGS, ids=str)
PROMPTS = torch.randn(2, 1, 5, TINY.text_dim, generator=torch.Generator().manual_seed(1))


def noise_of(config: RolloutConfig) -> Tensor:
    return clip_noise(["a red star"], [0], config.noises, (FRAMES, *FRAME))


def changing(config: RolloutConfig, first: int = 0, second: int = 1, frames: int | None = FRAMES) -> list[Tensor]:
    """Blocks of a stream whose prompt changes from number `first` to `second` at frame CHANGE."""
    model, noise = tiny("causal"), noise_of(config)
    texts = [model.read_text(prompt) for prompt in PROMPTS]
    return list(
        rollout_stream(
            model,
            lambda start: texts[first if start < CHANGE else second],
            lambda start, end: noise[:, :, start:end],
            frames,
            config,
        )
    )


@by_config
@torch.no_grad()
def test_what_was_before_is_untouched_and_what_comes_after_is_not(config: RolloutConfig):
    steady, changed = torch.cat(changing(config, 0, 0), 1), torch.cat(changing(config), 1)
    assert torch.equal(steady[:, :CHANGE], changed[:, :CHANGE])
    assert (steady[:, CHANGE:] - changed[:, CHANGE:]).abs().amin(dim=1).max() > 1e-3


@by_config
@torch.no_grad()
def test_a_change_to_the_same_prompt_changes_nothing(config: RolloutConfig):
    model, noise = tiny("causal"), noise_of(config)
    alone = rollout(model, model.read_text(PROMPTS[0]), noise, config)
    assert all(torch.equal(a, b) for a, b in zip(changing(config, 0, 0), alone, strict=True))


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
@torch.no_grad()
def test_recache_is_a_fresh_stream_that_began_with_the_last_window(attention: BlockCausal):
    config = replace(rollout_config(FlowSchedule(3), 2, attention, 0.1), prompt_change="recache")
    made = torch.cat(changing(config), 1)
    window = attention.window_frames or CHANGE
    kept = -(-window // attention.block_frames) * attention.block_frames  # whole blocks
    start = CHANGE - kept
    model, noise = tiny("causal"), noise_of(config)
    fresh = rollout(model, model.read_text(PROMPTS[1]), noise[:, :, start:], config, given=made[:, start:CHANGE])
    assert torch.equal(torch.cat(list(fresh), 1), made[:, start:])


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
@torch.no_grad()
def test_cut_drops_all_but_the_sink_and_the_last_frames(attention: BlockCausal):
    """Written out: after the change the same passes under the attention that has the cut."""
    config = replace(rollout_config(FlowSchedule(3), 2, attention, 0.0), prompt_change="cut", kept_frames=1)
    made, model, noise = changing(config), tiny("causal"), noise_of(config)
    cut = replace(attention, cuts=((CHANGE, CHANGE - 1),))
    cache, texts = KVCache(cut, FRAMES), [model.read_text(prompt) for prompt in PROMPTS]
    for block, (start, end) in zip(made, attention.blocks(FRAMES), strict=True):
        own, text = noise[:, :, start:end], texts[start >= CHANGE]
        xt, sigmas = own[:, 0], [torch.full((1,), sigma, dtype=torch.float64) for sigma in config.sigmas]
        x0 = velocity_to_x0(model(xt, sigmas[0] * TIMESTEPS, text, cache=cache), xt, sigmas[0])
        xt = ((1 - sigmas[1]) * x0 + sigmas[1] * own[:, 1]).to(xt.dtype)
        x0 = velocity_to_x0(model(xt, sigmas[1] * TIMESTEPS, text, cache=cache), xt, sigmas[1])
        assert torch.equal(x0, block)
        model.remember(block, torch.zeros(1), text, cache)
    whole = replace(config, prompt_change="keep")
    assert not torch.equal(torch.cat(changing(whole), 1), torch.cat(made, 1))


@pytest.mark.parametrize("change", ["keep", "recache", "cut"])
@torch.no_grad()
def test_a_stream_without_end_is_the_one_of_a_length(change: str):
    config = replace(rollout_config(FlowSchedule(3), 2, BlockCausal(3, 7, 1), 0.0), prompt_change=change)
    model, noise = tiny("causal"), noise_of(config)
    texts = [model.read_text(prompt) for prompt in PROMPTS]
    endless = rollout_stream(
        model, lambda start: texts[start >= CHANGE], lambda start, end: noise[:, :, start:end], None, config
    )
    for expected, block in zip(changing(config), endless, strict=False):
        assert torch.equal(block, expected)


def test_a_stream_without_end_and_without_a_window_is_refused():
    model, config = tiny("causal"), rollout_config(FlowSchedule(3), 2, BlockCausal(3), 0.0)
    stream = rollout_stream(model, lambda _: model.read_text(PROMPTS[0]), lambda *_: noise_of(config), None, config)
    with pytest.raises(ValueError, match="window_frames: is None, but a rollout without end needs a window"):
        next(stream)


@pytest.mark.parametrize("change", ["keep", "cut"])
@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())
@torch.no_grad()
def test_a_stream_is_one_masked_pass_with_the_prompts_of_its_frames(attention: BlockCausal, change: str):
    """Every block's last denoising step, after the blocks before it as clean frames (teacher forcing)."""
    config = replace(rollout_config(FlowSchedule(3), 1, attention, 0.0), prompt_change=change, kept_frames=1)
    model, noise, made = tiny("causal"), noise_of(config), torch.cat(changing(config), 1)
    prompts = TextByFrame((0, CHANGE), tuple(model.read_text(prompt) for prompt in PROMPTS))
    masked = replace(attention, cuts=((CHANGE, CHANGE - 1),)) if change == "cut" else attention
    sigma = torch.ones(1, FRAMES, dtype=torch.float64)
    velocity = model(noise[:, 0], sigma * TIMESTEPS, prompts, masked, clean=made)
    assert (velocity_to_x0(velocity, noise[:, 0], sigma) - made).abs().max() <= 1e-5 * made.abs().max()
