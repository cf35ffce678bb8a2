"""Training steps in micro-batches, with activation checkpointing and in bfloat16; EMA; frozen weights."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.models.dit import VideoDiT
from filmstill.params.compute import micro_batches
from filmstill.params.ode_init import OdeInit
from filmstill.runtime import randomness
from filmstill.training.ema import Ema
from filmstill.training.ode_init import OdeRegression, train_ode_init
from filmstill.training.pairs import Pairs
from goldens import tiny
from tiny_training import ENCODER, PROMPTS, ROLLOUT, SCHEDULE, SHAPE, alone, distillation, networks


def gradients(
    micro_batch: int | None, precision: torch.dtype = torch.float32, activation_checkpointing: bool = False
) -> Tensor:
    """All gradients of one critic and one generator update of four samples, from the same weights."""
    models = networks(precision, activation_checkpointing)
    run = distillation(models, micro_batch)
    kept: list[Tensor] = []

    def keep(model: VideoDiT) -> None:
        kept.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))

    for optimizer, model in ((run.critic_optimizer, models[1]), (run.generator_optimizer, models[0])):
        optimizer.step = partial(keep, model)
    run.step(0)
    return torch.cat(kept)


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_micro_batches_add_up_to_the_batch(micro_batch: int):
    whole, parts = gradients(None), gradients(micro_batch)
    assert (whole - parts).norm() <= 1e-5 * whole.norm()


def test_checkpointing_changes_no_gradient_of_an_update():
    """Upstream defect 1: the released rollout trains only with checkpointing, and differently than without."""
    assert torch.equal(gradients(None), gradients(None, activation_checkpointing=True))


def test_an_update_in_bfloat16_points_where_float32_does():
    exact, near = gradients(None), gradients(None, torch.bfloat16, activation_checkpointing=True)
    assert near.dtype == torch.float32 and not torch.equal(exact, near)
    assert torch.cosine_similarity(exact, near, dim=0) > 0.99


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_ode_regression_in_micro_batches_is_the_batchs(tmp_path: Path, micro_batch: int):
    """Samples differ in their number of noisy frames, so a mean of means would be another loss."""
    trajectories = randomness.normal((3, *SHAPE), 0, "pairs", 0, range(5))
    locations = [(trajectories, row) for row in range(5)]
    sigmas = torch.cat([SCHEDULE.nodes(2), torch.zeros(1, dtype=torch.float64)])
    pairs, params = Pairs(sigmas, PROMPTS, SHAPE, locations), OdeInit(steps=3, batch=4, muon_lr=None, adamw_lr=1e-3)
    losses = {
        size: train_ode_init(
            tmp_path / str(size),
            OdeRegression(
                params, pairs, ROLLOUT.attention, (2, 2), SCHEDULE, tiny("causal"), ENCODER, 0, alone(4, size)
            ),
            lambda path: None,
        )
        for size in (None, micro_batch)
    }  # fmt: skip
    assert losses[None] == pytest.approx(losses[micro_batch], rel=1e-5)
    assert losses[None][0] != losses[None][1]


def test_parts_cover_the_batch_once():
    for batch, size in ((4, None), (4, 1), (6, 2), (3, 3)):
        assert [i for part in alone(batch, size) for i in part] == list(range(batch))


@pytest.mark.parametrize(("world_size", "size", "parts"), [(2, None, 1), (4, 1, 2), (2, 2, 2)])
def test_processes_share_the_batch_in_equal_parts(world_size: int, size: int | None, parts: int):
    shares = [micro_batches(8, size, "batch", rank, world_size) for rank in range(world_size)]
    assert all(len(share) == parts for share in shares)
    assert sorted(i for share in shares for part in share for i in part) == list(range(8))


@pytest.mark.parametrize(("batch", "size", "world_size"), [(6, None, 4), (6, 2, 2), (2, None, 4), (5, 2, 1)])
def test_a_batch_that_does_not_divide_is_refused_by_its_key(batch: int, size: int | None, world_size: int):
    with pytest.raises(FilmstillError, match=f"distill.batch: is {batch}, .* x {world_size} rank"):
        micro_batches(batch, size, "distill.batch", 0, world_size)


def test_the_average_begins_at_its_start():
    """Upstream starts its average at step 200; until then it equals the generator."""
    model = torch.nn.Linear(2, 2)
    ema, seen = Ema(model, 0.5, start=2), []
    for index in range(4):
        with torch.no_grad():
            model.weight.fill_(float(index + 1))
        ema.update(model, index)
        seen.append(ema.tensors()["weight"][0, 0].item())
    assert seen == [1.0, 2.0, 2.5, 3.25]


def test_frozen_weights_are_cast_once_and_what_must_be_exact_is_not():
    model = tiny("bidir")
    model.precision = torch.bfloat16
    model.freeze()
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert "blocks.0.self_attn.q.weight" not in kept and "patch_embedding.weight" not in kept
    assert {"time_embedding.0.weight", "time_projection.1.bias", "head.head.weight", "blocks.1.modulation"} <= kept
    assert not any(p.requires_grad for p in model.parameters())


def test_a_network_released_in_bfloat16_is_exact_where_it_must_be():
    model = tiny("bidir").bfloat16()
    model.freeze()  # to compute in float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model = tiny("bidir").bfloat16()
    model.precision = torch.bfloat16
    model.freeze()
    assert model.time_embedding[0].weight.dtype == model.head.modulation.dtype == torch.float32
    assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
