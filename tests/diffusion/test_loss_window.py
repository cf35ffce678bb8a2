"""A rollout whose loss is on a window of its frames: what has a gradient, and what a long rollout keeps."""

import pytest
import torch
from torch import Tensor

from counting import Live, counted
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, rollout, rollout_stream
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.kv_cache import KVCache
from filmstill.models.prompts_by_frame import TextKV
from filmstill.models.rope import rope_table
from goldens import TINY, tiny
from rollouts import rollout_config

PROMPTS, FRAMES, START, STEPS = ["a red seven", "a blue nine sways"], 18, 12, 3
BEFORE = START // 3  # blocks before the window
FRAME = (TINY.in_channels, 4, 6)
CONFIGS = {
    "global": rollout_config(FlowSchedule(5), STEPS, BlockCausal(3), 0.0),
    "moving window": rollout_config(FlowSchedule(5), STEPS, BlockCausal(3, 6), 0.0),
    "window, sink, noisy context": rollout_config(FlowSchedule(3), STEPS, BlockCausal(3, 7, 1), 0.1),
}
by_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
by_exit = pytest.mark.parametrize("exit_step", range(STEPS))


def vectors() -> Tensor:
    """Token vectors [2, 5, text_dim] of two different prompts."""
    return torch.randn(2, 5, TINY.text_dim, generator=torch.Generator().manual_seed(1))


def noise_of(config: RolloutConfig) -> Tensor:
    return clip_noise(PROMPTS, [0, 1], config.noises, (FRAMES, *FRAME))


def gradients(model: VideoDiT, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def level(sigma: float) -> Tensor:
    return torch.full((len(PROMPTS),), sigma, dtype=torch.float64)


def by_hand(model: VideoDiT, text: TextKV, noise: Tensor, config: RolloutConfig, exit_step: int) -> list[Tensor]:
    """The window's blocks: those before it are served into a KV cache, then each exits at `exit_step`."""
    cache, made = KVCache(config.attention, FRAMES, FRAMES - START), []

    def denoise(xt: Tensor, step: int) -> Tensor:
        sigma = level(config.sigmas[step])
        return velocity_to_x0(model(xt, sigma * TIMESTEPS, text, cache=cache), xt, sigma)

    def make(own: Tensor, last: int) -> Tensor:
        xt = own[:, 0]
        with torch.no_grad():
            for step in range(last):
                xt = add_noise(denoise(xt, step), own[:, step + 1], level(config.sigmas[step + 1]))
        return denoise(xt, last)

    def remember(x0: Tensor, own: Tensor) -> None:
        sigma = level(config.context_sigma)
        with torch.no_grad():
            model.remember(add_noise(x0.detach(), own[:, -1], sigma), sigma * TIMESTEPS, text, cache)

    for start in range(0, FRAMES, 3):
        own = noise[:, :, start : start + 3]
        with torch.set_grad_enabled(start >= START):
            block = make(own, exit_step if start >= START else STEPS - 1)
        if start >= START:
            made.append(block)
        if start + 3 < FRAMES:
            remember(block, own)
    return made


@by_exit
@by_config
def test_blocks_before_the_window_are_served_and_have_no_gradient(config: RolloutConfig, exit_step: int):
    model, noise = tiny("causal"), noise_of(config)
    blocks = list(rollout(model, model.read_text(vectors()), noise, config, exit_step, (START, FRAMES)))
    assert [block.requires_grad for block in blocks] == [False] * BEFORE + [True] * 2
    with torch.no_grad():
        served = list(rollout(model, model.read_text(vectors()), noise, config))
    # A window that has moved adds up in another order: the cache has more slots where there are gradients.
    tolerance = 0 if config.attention.window_frames is None else 1e-6
    same = [(block - other).abs().max() <= tolerance for block, other in zip(blocks, served, strict=True)]
    assert all(same[:BEFORE])
    assert same[BEFORE] == (exit_step == STEPS - 1)


@by_exit
@by_config
def test_the_gradient_is_that_of_a_window_after_a_served_context(config: RolloutConfig, exit_step: int):
    model, noise = tiny("causal"), noise_of(config)
    blocks = list(rollout(model, model.read_text(vectors()), noise, config, exit_step, (START, FRAMES)))
    ours = gradients(model, torch.cat(blocks, 1).square().sum())
    written = by_hand(model, model.read_text(vectors()), noise, config, exit_step)
    expected = gradients(model, torch.cat(written, 1).square().sum())
    assert all(torch.equal(block, other) for block, other in zip(blocks[BEFORE:], written, strict=True))
    assert ours.keys() == expected.keys() and max(gradient.abs().max() for gradient in ours.values()) > 0
    for name, gradient in expected.items():
        assert (ours[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name
    whole = list(rollout(model, model.read_text(vectors()), noise, config, exit_step))
    other = gradients(model, torch.cat(whole, 1).square().sum())
    assert any(not torch.equal(ours[name], other[name]) for name in ours)


@by_config
@pytest.mark.parametrize("exit_step", [None, 0, STEPS - 1])
def test_a_window_of_every_frame_is_no_window(config: RolloutConfig, exit_step: int | None):
    model, noise = tiny("causal"), noise_of(config)
    results = []
    for window in (None, (0, FRAMES)):
        video = torch.cat(list(rollout(model, model.read_text(vectors()), noise, config, exit_step, window)), 1)
        results.append({"video": video.detach(), **gradients(model, video.square().sum())})
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@by_config
def test_checkpointing_changes_no_gradient_of_a_window(config: RolloutConfig):
    noise, kept = noise_of(config), []
    for activation_checkpointing in (False, True):
        model = tiny("causal")
        model.activation_checkpointing = activation_checkpointing
        blocks = list(rollout(model, model.read_text(vectors()), noise, config, 1, (START, FRAMES)))
        kept.append(gradients(model, torch.cat(blocks, 1).square().sum()))
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_grad_mode_is_the_consumers_between_blocks():
    """A generator that left a block in another grad mode would turn the consumer's gradients on or off."""
    config = CONFIGS["global"]
    for enabled in (True, False):
        model = tiny("causal")
        with torch.set_grad_enabled(enabled):
            for block in rollout(model, model.read_text(vectors()), noise_of(config), config, 1, (START, FRAMES)):
                assert torch.is_grad_enabled() == enabled
                assert enabled or not block.requires_grad


@torch.no_grad()
def test_a_streams_memory_and_its_operations_per_block_are_constant():
    """At frames 12, 240 and 2,400 of one stream: bytes alive between blocks, bytes of the cache, operations."""
    config, model, live = rollout_config(FlowSchedule(3), 1, BlockCausal(3, 7, 1), 0.1), tiny("causal"), Live()
    text = model.read_text(vectors())

    def noise(start: int, end: int) -> Tensor:
        return torch.zeros(2, config.noises, end - start, *FRAME)

    stream = rollout_stream(model, lambda _: text, noise, 2403, config)
    alive, operations, frame = {}, {}, 0
    with live:
        while frame < 2400:
            if frame + 3 in (12, 240, 2400):
                operations[frame + 3] = counted(lambda: next(stream))
            else:
                next(stream)
            frame += 3
            if frame in (12, 240, 2400):
                rope_table.cache_clear()  # the tables of the last 64 places, of a fixed number and size
                alive[frame] = live.now
    assert alive[12] == alive[240] == alive[2400] > 0
    assert operations[12] == operations[240] == operations[2400] > 0


@by_config
@torch.no_grad()
def test_the_cache_is_as_large_at_frame_240_as_at_frame_12(config: RolloutConfig):
    model, cache = tiny("causal"), KVCache(config.attention, 2400)
    text, sizes = model.read_text(vectors()), {}
    for end in range(3, 241, 3):
        model.remember(torch.zeros(2, 3, *FRAME), torch.zeros(2), text, cache)
        buffers = [tensor for pair in cache._buffers.values() for tensor in pair]
        sizes[end] = sum(tensor.untyped_storage().nbytes() for tensor in buffers)
    moves = config.attention.window_frames is not None
    assert sizes[12] == sizes[240]
    assert (sizes[240] < 240 * 2 * 2 * TINY.num_layers * 6 * TINY.dim * 4) == moves
