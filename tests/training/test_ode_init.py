"""Which points of a trajectory ODE initialisation trains on, and chained trajectories."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from counting import counted
from filmstill.diffusion.schedule import TIMESTEPS, velocity_to_x0, x0_to_velocity
from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal
from filmstill.objectives.denoising import velocity_loss, x0_loss
from filmstill.params.ode_init import LOSSES, OdeInit
from filmstill.params.profile import compose
from filmstill.runtime import randomness
from filmstill.training.ode_init import OdeRegression, draw_nodes, train_ode_init
from filmstill.training.pairs import Pairs
from filmstill.training.telemetry import StepCost
from goldens import tiny
from tiny_training import ENCODER, PLAIN, PROMPTS, SCHEDULE, SHAPE, alone

NODES, FRAMES, ATTENTION = 4, 12, BlockCausal(3)


def drawn(steps: int, attention: BlockCausal = ATTENTION, clean_share: float = 0.0) -> torch.Tensor:
    """Node of every frame [steps * 8, F] over many steps of eight samples."""
    draws = [draw_nodes(attention, FRAMES, (NODES, NODES), 0, step, range(8), clean_share) for step in range(steps)]
    return torch.cat(draws)


def test_no_sample_is_all_clean():
    """Defect 17: the released loss is NaN when every drawn timestep is 0. Here the last block is never clean."""
    nodes = drawn(200)
    assert (nodes[:, -3:] < NODES).all()
    assert (nodes[:, :-3] == NODES).any(), "earlier blocks are clean now and then: a rollout's context is"


def test_a_block_has_one_node_and_every_node_comes():
    nodes = drawn(50)
    by_block = nodes.unflatten(1, (4, 3))
    assert (by_block == by_block[:, :, :1]).all()
    assert [set(block.flatten().tolist()) for block in by_block.unbind(1)] == [{0, 1, 2, 3, 4}] * 3 + [{0, 1, 2, 3}]


def test_blocks_differ_in_length_with_an_independent_first_frame():
    nodes = drawn(20, BlockCausal(3, independent_first=True))
    edges = [0, 1, 4, 7, 10, 12]
    assert all((nodes[:, a:b] == nodes[:, a : a + 1]).all() for a, b in pairwise(edges))
    assert not (nodes[:, 0] == nodes[:, 1]).all()


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_share_of_blocks_is_clean_whatever_they_drew(share: float):
    before, nodes = drawn(400)[:, ::3], drawn(400, clean_share=share)[:, ::3]
    assert torch.equal(nodes[:, -1], before[:, -1]) and (nodes[:, -1] < NODES).all()
    set_clean = (nodes != before)[:, :-1]
    assert (nodes[:, :-1][set_clean] == NODES).all()
    drew_it = 1 / (NODES + 1)
    expected = drew_it + (1 - drew_it) * share
    assert (nodes[:, :-1] == NODES).double().mean(0).tolist() == pytest.approx([expected] * 3, abs=0.03)
    together = (nodes[:, :-1] == NODES).all(1).double().mean().item()
    assert together == pytest.approx(expected**3, abs=0.03), "blocks are set independently"


def test_a_clean_block_depends_on_seed_step_and_sample_alone():
    whole = draw_nodes(ATTENTION, FRAMES, (NODES, NODES), 0, 3, range(8), 0.5)
    assert torch.equal(whole[2:5], draw_nodes(ATTENTION, FRAMES, (NODES, NODES), 0, 3, range(2, 5), 0.5))
    assert not torch.equal(whole, draw_nodes(ATTENTION, FRAMES, (NODES, NODES), 0, 4, range(8), 0.5))
    assert not torch.equal(whole, draw_nodes(ATTENTION, FRAMES, (NODES, NODES), 1, 3, range(8), 0.5))


# Chained trajectories: clips of six frames, a window that hides a block's copy

WINDOW, CLIPS = BlockCausal(3, 6), 3


def regression(micro_batch: int | None = None, **changes: object) -> OdeRegression:
    trajectories = randomness.normal((3, *SHAPE), 0, "pairs", 0, range(5))
    sigmas = torch.cat([SCHEDULE.nodes(2), torch.zeros(1, dtype=torch.float64)])
    pairs = Pairs(sigmas, PROMPTS, SHAPE, [(trajectories, row) for row in range(5)])
    params = OdeInit(steps=3, batch=4, **{**PLAIN, "clips": CLIPS, "clean_share": 0.4, **changes})
    return OdeRegression(params, pairs, WINDOW, (2, 2), SCHEDULE, tiny("causal"), ENCODER, 0, alone(4, micro_batch))


@pytest.mark.parametrize("kind", LOSSES)
def test_a_step_is_the_regression_of_repeated_trajectories(kind: str):
    run, gradients = regression(muon_lr=None, loss=kind), []
    for optimizer in run.optimizers.values():
        optimizer.step = lambda: gradients.append(gradient_of(run))
    run.params.max_grad_norm = 1e9
    loss = run.step(1)["loss"]
    run.model.zero_grad()
    chosen = randomness.batch_indices(5, 0, "ode_init/order", 1, 4)
    chained = run.pairs.trajectories(chosen, [0, 1, 2]).repeat(1, 1, CLIPS, 1, 1, 1)
    nodes = draw_nodes(WINDOW, CLIPS * SHAPE[0], (2, 2), 0, 1, range(4), 0.4)
    assert nodes.shape == (4, CLIPS * SHAPE[0]) and len(nodes[:, :: SHAPE[0]].unique()) > 1
    index = nodes[:, None, :, None, None, None].expand(-1, -1, -1, *SHAPE[1:])
    xt, sigma, noisy = chained.gather(1, index)[:, 0], run.sigmas[nodes], nodes < 2
    text = run.model.read_text(ENCODER.encode([PROMPTS[i] for i in chosen]))
    velocity, x0 = run.model(xt, sigma * TIMESTEPS, text, attention=WINDOW), chained[:, -1]
    if kind == "x0":
        expected = x0_loss(x0[noisy], velocity_to_x0(velocity, xt, sigma)[noisy])
    else:
        expected = velocity_loss(x0_to_velocity(x0[noisy], xt[noisy], sigma[noisy]), velocity[noisy])
    expected.backward()
    assert loss == expected.item() and torch.equal(gradients[0], gradient_of(run))


def gradient_of(run: OdeRegression) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in run.model.parameters()])


def test_no_block_sees_the_copy_of_its_own_noise():
    """Under a window of at most a clip; a longer one would show a block at another noise level what it must predict."""
    frames = CLIPS * SHAPE[0]
    copy = torch.arange(frames)[:, None] % SHAPE[0] == torch.arange(frames) % SHAPE[0]
    other = copy & ~torch.eye(frames, dtype=torch.bool)
    assert not (WINDOW.causal_mask(frames) & other).any()
    assert (BlockCausal(3, 7).causal_mask(frames) & other).any() and (ATTENTION.causal_mask(frames) & other).any()


def test_chained_trajectories_in_micro_batches_are_the_batchs(tmp_path: Path):
    losses = [train_ode_init(tmp_path / str(size), regression(size), lambda path: None) for size in (None, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0][0] != losses[0][1]


def test_operations_of_a_step_are_those_counted():
    """Counted without a window, whose masked pairs the counter sees and a GPU's kernel skips."""
    run = regression()
    run.attention = BlockCausal(CLIPS * SHAPE[0])
    shape = (CLIPS * SHAPE[0], *SHAPE[1:])
    cost = StepCost.of_regression(run.model, shape, ENCODER.text_len, 4, run.attention)
    for optimizer in run.optimizers.values():
        optimizer.step = lambda: None
    assert cost.flops(0) == counted(lambda: run.step(0))
    assert cost.tokens == 4 * CLIPS * SHAPE[0] * SHAPE[2] * SHAPE[3] // 4


LOOP = ["world.period=12", "student.window_frames=9"]


def test_chained_clips_are_accepted_where_clips_loop():
    for period in (12, 6):
        assert compose("embedded", ["ode_init.clips=2", *LOOP, f"world.period={period}"]).ode_init.clips == 2


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        (
            "wan-mini",
            [],
            "ode_init.clips: is 2, allowed: 1: a trajectory can be chained to itself only where clips loop",
        ),
        ("embedded", ["world.period=24"], "world.period: is 24, allowed: a divisor of world.frames (12) where"),
        ("embedded", ["student.window_frames=null"], "student.window_frames: is None, allowed: at most world.frames"),
        ("embedded", ["student.window_frames=15"], "student.window_frames: is 15, allowed: at most world.frames (12)"),
        ("embedded", ["student.sink_frames=1"], "student.sink_frames: is 1, allowed: 0 where ode_init.clips is 2"),
        ("embedded", ["ode_init.clips=0"], "ode_init.clips: is 0, allowed: an integer in [1, 100]"),
        ("embedded", ["ode_init.clean_share=1"], "ode_init.clean_share: is 1.0, allowed: a number in [0, 1)"),
    ],
)
def test_chained_clips_are_refused_where_they_do_not_loop(profile: str, overrides: list[str], message: str):
    base = [] if profile == "wan-mini" else LOOP
    with pytest.raises(FilmstillError) as refused:
        compose(profile, ["ode_init.clips=2", *base, *overrides])
    assert message in str(refused.value) and "\n" not in str(refused.value)
