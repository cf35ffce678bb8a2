"""The schedule's closed form, addressed randomness, and the order of samples."""

import pytest
import torch

from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.schedule import FlowSchedule, add_noise, euler_step, velocity_to_x0, x0_to_velocity
from filmstill.runtime import randomness
from filmstill.runtime.randomness import batch_indices

SHAPE = (2, 3, 4, 4, 6)


def normals(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_four_nodes_of_shift_five_are_the_familiar_timesteps():
    nodes = FlowSchedule(5).nodes(4)
    assert nodes.dtype == torch.float64
    assert [round(1000 * s, 10) for s in nodes.tolist()] == [1000, 937.5, round(2500 / 3, 10), 625]


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
def test_warp_rises_from_zero_to_one_and_leaves_the_ends(shift):
    sigma = FlowSchedule(shift).warp(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert sigma[0] == 0
    assert sigma[-1] == 1
    assert (sigma.diff() > 0).all()
    middle = FlowSchedule(shift).warp(torch.tensor([0.5])).item()
    assert middle == pytest.approx(shift / (shift + 1))  # a larger shift is closer to noise


@pytest.mark.parametrize("sigma", [torch.tensor([0.3, 0.97]), torch.linspace(0.1, 1, 6).view(2, 3)])
def test_velocity_and_x0_are_inverse_for_a_sigma_a_clip_and_a_sigma_a_frame(sigma):
    x0, noise, velocity = normals(3)
    xt = add_noise(x0, noise, sigma)
    assert torch.allclose(x0_to_velocity(x0, xt, sigma), noise - x0, atol=1e-4)
    assert torch.allclose(velocity_to_x0(noise - x0, xt, sigma), x0, atol=1e-5)
    back = x0_to_velocity(velocity_to_x0(velocity, xt, sigma), xt, sigma)
    assert torch.allclose(back, velocity, atol=1e-4)


def test_no_noise_and_all_noise_are_exact():
    x0, noise = normals(2)
    assert torch.equal(add_noise(x0, noise, torch.zeros(2)), x0)
    assert torch.equal(add_noise(x0, noise, torch.ones(2)), noise)


def test_an_euler_step_along_the_true_velocity_lands_on_the_line():
    x0, noise = normals(2)
    sigma, following = torch.tensor([0.9, 0.2]), torch.tensor([0.5, 0.0])
    stepped = euler_step(add_noise(x0, noise, sigma), noise - x0, sigma, following)
    assert torch.allclose(stepped, add_noise(x0, noise, following), atol=1e-5)


def test_randomness_is_its_address():
    def draw(seed: int = 0, purpose: str = "p", step: int = 3) -> list[torch.Tensor]:
        samples = range(4)
        return [
            randomness.normal((2, 5), seed, purpose, step, samples),
            randomness.uniform(seed, purpose, step, samples),
            randomness.integers(1000, (7,), seed, purpose, step, samples),
        ]

    here = draw()
    torch.randn(17)  # the global generator has no effect
    for kind, again in enumerate(draw()):
        assert torch.equal(here[kind], again)
    for elsewhere in (draw(seed=1), draw(purpose="q"), draw(step=4)):
        for kind, other in enumerate(elsewhere):
            assert not torch.equal(here[kind], other)


def test_the_batch_a_sample_falls_into_does_not_change_what_is_drawn():
    whole = randomness.normal((3,), 0, "p", 1, range(6))
    parts = [randomness.normal((3,), 0, "p", 1, samples) for samples in ([0, 1], [2], [5, 4, 3])]
    assert torch.equal(whole, torch.cat([*parts[:2], parts[2].flip(0)]))
    assert len(whole.unique()) == whole.numel()
    split = [randomness.uniform(0, "p", 1, [i]) for i in range(6)]
    assert torch.equal(randomness.uniform(0, "p", 1, range(6)), torch.cat(split))


def test_addresses_that_read_alike_when_joined_are_told_apart():
    """12 followed by 3 is not 1 followed by 23."""
    a = randomness.generator(0, "p", 12, 3).initial_seed()
    assert a != randomness.generator(0, "p", 1, 23).initial_seed()
    assert a != randomness.generator(1, "p", 2, 3).initial_seed()


def test_a_longer_clips_noise_begins_with_the_shorter_ones():
    short = clip_noise(["a cat", "a dog"], [0, 1], 5, (3, 2, 4, 4))
    long = clip_noise(["a cat", "a dog"], [0, 1], 5, (9, 2, 4, 4))
    assert short.shape == (2, 5, 3, 2, 4, 4)
    assert torch.equal(long[:, :, :3], short)
    block = clip_noise(["a cat", "a dog"], [0, 1], 5, (2, 2, 4, 4), first=4)  # a stream makes its noise block by block
    assert torch.equal(long[:, :, 4:6], block)


def test_clip_noise_depends_on_prompt_seed_step_and_frame_alone():
    noise = clip_noise(["a cat", "a cat", "a dog"], [0, 1, 0], 2, (2, 1, 2, 2))
    assert len(noise.unique()) == noise.numel()
    assert torch.equal(clip_noise(["a dog"], [0], 2, (2, 1, 2, 2))[0], noise[2])
    assert torch.equal(clip_noise(["a dog"], [0], 1, (2, 1, 2, 2))[0, 0], noise[2, 0])  # a teacher uses step 0


@pytest.mark.parametrize("count", [7, 12])
def test_every_epoch_is_a_permutation_of_its_own(count):
    epochs = [batch_indices(count, 0, "order", epoch, count) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert batch_indices(count, 1, "order", 0, count) != epochs[0]


@pytest.mark.parametrize("batch", [1, 3, 5, 16])
def test_the_order_does_not_depend_on_the_batch_size(batch):
    count, needed = 7, 48
    stream = [i for step in range(-(-needed // batch)) for i in batch_indices(count, 0, "order", step, batch)]
    reference = [i for epoch in range(7) for i in batch_indices(count, 0, "order", epoch, count)]
    assert stream[:needed] == reference[:needed]
