"""ODE init on sequences whose prompt changes, and on first frames that are given."""

import pytest
import torch
from test_ode_init import CLIPS, WINDOW, gradient_of, regression

from filmstill.diffusion.schedule import TIMESTEPS, x0_to_velocity
from filmstill.models.prompts_by_frame import TextByFrame
from filmstill.objectives.denoising import velocity_loss
from filmstill.runtime import randomness
from filmstill.training.ode_init import draw_nodes
from tiny_training import ENCODER, PROMPTS, SHAPE

FRAMES = CLIPS * SHAPE[0]


def test_a_step_regresses_two_trajectories_each_under_its_prompt():
    """Every sample alone: its frames up to the change, then those of another pair at the same places."""
    run, gradients = regression(muon_lr=None, prompt_switch=0.5), []
    for optimizer in run.optimizers.values():
        optimizer.step = lambda: gradients.append(gradient_of(run))
    run.params.max_grad_norm = 1e9
    loss = run.step(1)["loss"]
    run.model.zero_grad()
    chosen = randomness.batch_indices(5, 0, "ode_init/order", 1, 4)
    start, after = run._change(1, chosen)
    assert start in range(3, FRAMES, 3) and len({a == b for a, b in zip(chosen, after, strict=True)}) == 2
    nodes = draw_nodes(WINDOW, FRAMES, (2, 2), 0, 1, range(4), 0.4)
    noisy, frames, errors = nodes < 2, torch.arange(FRAMES) % SHAPE[0], []
    for sample, pairs in enumerate(zip(chosen, after, strict=True)):
        points = run.pairs.trajectories(list(pairs), [0, 1, 2])
        source = (torch.arange(FRAMES) >= start).long()
        xt, x0 = points[source, nodes[sample], frames][None], points[source, 2, frames][None]
        text = [run.model.read_text(ENCODER.encode([PROMPTS[pair]])) for pair in pairs]
        sigma, seen = run.sigmas[nodes[sample]][None], noisy[sample][None]
        velocity = run.model(xt, sigma * TIMESTEPS, TextByFrame((0, start), tuple(text)), attention=WINDOW)
        target = x0_to_velocity(x0[seen], xt[seen], sigma[seen])
        errors.append(velocity_loss(target, velocity[seen]) * (seen.sum() / noisy.sum()))
    sum(errors).backward()
    assert loss == pytest.approx(sum(errors).item(), rel=1e-5)
    expected = gradient_of(run)
    assert (gradients[0] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_micro_batches_change_as_the_batch_does():
    losses = [regression(size, prompt_switch=0.5).step(2)["loss"] for size in (None, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != regression(None, prompt_switch=0.0).step(2)["loss"]


def test_a_sequence_of_one_block_changes_no_prompt():
    run = regression(prompt_switch=1.0)
    run.frames = run.frames[:3]
    assert run._change(0, [0, 1, 2, 3]) is None


def test_a_share_of_first_frames_is_given_and_the_rest_of_their_block_is_not():
    shares = []
    for share in (0.0, 0.5):
        nodes = draw_nodes(WINDOW, FRAMES, (2, 2), 0, 3, range(2000), 0.0, share)
        alone = (nodes[:, 0] == 2) & (nodes[:, 1] != 2)
        shares.append(alone.float().mean().item())
        assert torch.equal(nodes[:, 1], nodes[:, 2])
    assert shares[0] == 0 and shares[1] == pytest.approx(0.5 * 2 / 3, abs=0.04)
