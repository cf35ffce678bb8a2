"""A rollout that begins with given frames: those of a picture, or of a clip that it goes on with."""

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0
from filmstill.models.attention import BlockCausal
from goldens import TINY, tiny
from rollouts import rollout_config

FRAMES, FRAME = 13, (TINY.in_channels, 4, 6)
CONFIGS = {
    "global": rollout_config(FlowSchedule(5), 3, BlockCausal(3), 0.0),
    "window, sink, noisy context": rollout_config(FlowSchedule(3), 2, BlockCausal(3, 7, 1), 0.1),
    "relative": rollout_config(FlowSchedule(3), 2, BlockCausal(3, 7, 1, relative=True), 0.0),
    "independent first": rollout_config(FlowSchedule(5), 2, BlockCausal(3, 6, independent_first=True), 0.0),
    "single frames": rollout_config(FlowSchedule(5), 2, BlockCausal(1, 4), 0.0),
}
by_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def text() -> Tensor:
    return torch.randn(2, 5, TINY.text_dim, generator=torch.Generator().manual_seed(1))


def noise_of(config: RolloutConfig) -> Tensor:
    return clip_noise(["a red star", ""], [0, 1], config.noises, (FRAMES, *FRAME))


def video(config: RolloutConfig, given: Tensor | None = None, exit_step: int | None = None) -> Tensor:
    model = tiny("causal")
    blocks = rollout(model, model.read_text(text()), noise_of(config), config, exit_step, given=given)
    return torch.cat(list(blocks), dim=1)


@by_config
@torch.no_grad()
def test_extending_a_clips_own_first_blocks_gives_the_clip_back(config: RolloutConfig):
    whole = video(config)
    for _, end in config.attention.blocks(FRAMES):
        assert torch.equal(video(config, whole[:, :end]), whole)


@by_config
@pytest.mark.parametrize("count", [1, 2, 4, 5, 13])
@torch.no_grad()
def test_given_frames_come_out_as_they_are_and_the_others_follow_them(config: RolloutConfig, count: int):
    given = torch.randn(2, count, *FRAME, generator=torch.Generator().manual_seed(2))
    made = video(config, given)
    assert torch.equal(made[:, :count], given)
    assert made.shape[1] == FRAMES
    if count < FRAMES:
        other = video(config, given + 1)
        assert (other[:, count:] - made[:, count:]).abs().amax(dim=(2, 3, 4))[:, 0].min() > 1e-4


@torch.no_grad()
def test_the_rest_of_a_block_is_denoised_beside_its_given_frames():
    """Written out: the given frames at the context's noise level, the others at the step's."""
    config, model = CONFIGS["window, sink, noisy context"], tiny("causal")
    noise, given = noise_of(config)[:, :, :3], torch.randn(2, 1, *FRAME, generator=torch.Generator().manual_seed(2))
    read, x0 = model.read_text(text()), torch.zeros(2, 3, *FRAME)
    context = add_noise(given, noise[:, -1, :1], torch.full((2,), 0.1))
    for step, sigma in enumerate(config.sigmas):
        xt = add_noise(x0, noise[:, step], torch.full((2,), sigma, dtype=torch.float64))
        xt = torch.cat([context, xt[:, 1:]], dim=1)
        level = torch.tensor([[0.1, sigma, sigma]] * 2, dtype=torch.float64)
        x0 = velocity_to_x0(model(xt, level * TIMESTEPS, read, BlockCausal(3)), xt, level)
    assert (video(config, given)[:, 1:3] - x0[:, 1:]).abs().max() <= 1e-5 * x0.abs().max()


def test_given_frames_have_no_gradient_and_the_rest_of_their_block_has():
    config = CONFIGS["global"]
    given = torch.randn(2, 4, *FRAME, generator=torch.Generator().manual_seed(2))
    model, read, noise = _start(config)
    weight = model.patch_embedding.weight.requires_grad_(True)
    first, second = list(rollout(model, read, noise, config, 1, given=given))[:2]
    assert not first.requires_grad
    gradients = [
        torch.autograd.grad(second[:, frame].sum(), [weight], retain_graph=True, allow_unused=True)[0]
        for frame in range(3)
    ]
    assert gradients[0] is None or not gradients[0].any()
    assert all(gradient.abs().max() > 0 for gradient in gradients[1:])


def _start(config: RolloutConfig) -> tuple:
    model = tiny("causal")
    return model, model.read_text(text()), noise_of(config)
