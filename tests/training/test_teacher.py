"""The teacher's training: which frames are given, what the network then sees, and what its loss leaves out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.text import HashedWords
from filmstill.params.teacher import Teacher
from filmstill.params.world import World
from filmstill.training.teacher import EmbeddedTeacher, fit_codec, given_frames, new_model, train_teacher
from filmstill.worlds.symbols import draw
from goldens import TINY

SHARE, WORLD = 0.6, World()


def test_given_frames_are_of_a_share_of_the_clips_and_never_all():
    given = given_frames(SHARE, 12, 0, 3, range(2000))
    some = given.any(dim=1).float().mean().item()
    assert 0.5 < some < SHARE, "a clip whose part is small may have none"
    assert not given.all(dim=1).any() and not given_frames(1.0, 1, 0, 0, range(100)).any()
    assert given.float().mean().item() == pytest.approx(SHARE * 0.3, abs=0.02)
    assert given.float().mean(dim=0).std() < 0.02, "early and late frames alike"


def test_given_frames_depend_on_the_sample_and_not_on_its_batch():
    assert torch.equal(given_frames(SHARE, 12, 0, 3, range(8))[5:], given_frames(SHARE, 12, 0, 3, range(5, 8)))
    assert not given_frames(0.0, 12, 0, 3, range(100)).any()


def first_step(folder: Path, params: Teacher) -> tuple[Tensor, Tensor, Tensor]:
    """What the network saw in the first step, latents and timesteps, and the gradient of its velocity."""
    network, seen = new_model(replace(TINY, in_channels=16), 0), []

    def look(_network: nn.Module, inputs: tuple[Tensor, ...], velocity: Tensor) -> None:
        if torch.is_grad_enabled():
            velocity.retain_grad()
            seen.append((inputs[0], inputs[1], velocity))

    nn.init.normal_(network.head.head.weight, generator=torch.Generator().manual_seed(0))
    network.register_forward_hook(look)
    teacher = EmbeddedTeacher(network, fit_codec(WORLD, 0), HashedWords(16, TINY.text_dim), WORLD, FlowSchedule(3.0), 0)
    train_teacher(folder, params, teacher)
    latents, timesteps, velocity = seen[0]
    assert velocity.grad is not None
    return latents, timesteps, velocity.grad


def test_given_frames_are_clean_at_timestep_0_and_count_for_no_loss(tmp_path: Path):
    params = Teacher(steps=1, batch=6)
    noisy, time, _ = first_step(tmp_path / "none", params)
    latents, timesteps, gradient = first_step(tmp_path / "some", replace(params, given=1.0))
    given = given_frames(1.0, WORLD.frames, 0, 0, range(params.batch))
    assert given.any() and time.shape == (params.batch,) and timesteps.shape == given.shape
    assert torch.equal(timesteps == 0, given)
    assert torch.equal(latents[~given], noisy[~given]), "the other frames are as noisy as without given ones"
    drawn = draw(WORLD, 0, "teacher/clips", 0, range(params.batch), params.open_prompts)
    clean = fit_codec(WORLD, 0).encode(drawn.video)
    assert torch.equal(latents[given], clean[given])
    assert (gradient[given] == 0).all() and (gradient[~given] != 0).all()
