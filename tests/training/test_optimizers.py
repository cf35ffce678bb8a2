"""The average of the weights, the learning-rate schedule, and Muon."""

import pytest
import torch
from torch import nn

from filmstill.training.ema import Ema
from filmstill.training.muon import Muon, orthogonal
from filmstill.training.optimizers import adamw, muon_and_adamw, set_learning_rate, warmup_then_decay
from goldens import tiny


def test_swapping_the_average_in_and_out_restores_to_the_bit():
    model = nn.Linear(5, 3)
    ema = Ema(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    ema.update(model, 0)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    average = {name: t.clone() for name, t in ema.tensors().items()}
    with pytest.raises(ZeroDivisionError), ema.swapped_into(model):
        assert all(torch.equal(p, average[name]) for name, p in model.named_parameters())
        raise ZeroDivisionError
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())
    assert all(torch.equal(t, average[name]) for name, t in ema.tensors().items())
    assert not any(torch.equal(own[name], average[name]) for name in own)


def test_learning_rate_rises_stays_and_falls_to_nothing():
    factors = [warmup_then_decay(step, 100, 10, 0.3) for step in range(100)]
    assert factors[0] == 0.1
    assert factors[9:71] == [1.0] * 62
    assert factors[-1] == pytest.approx(1 / 30)
    assert sorted(factors[9:], reverse=True) == factors[9:]


def test_the_learning_rate_is_a_function_of_the_step_and_not_of_the_steps_before():
    optimizers = muon_and_adamw(nn.ModuleDict({"blocks": nn.Linear(4, 4), "head": nn.Linear(4, 2)}), 1e-2, 1e-3, 0.1)
    for factor in (0.5, 0.1, 1.0, 0.25):
        set_learning_rate(optimizers.values(), factor)
    assert [group["lr"] for o in optimizers.values() for group in o.param_groups] == [2.5e-3, 2.5e-4]


def test_muon_takes_the_blocks_matrices_and_adamw_the_rest():
    model = nn.ModuleDict({"blocks": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    muon, adamw = (o.param_groups[0]["params"] for o in muon_and_adamw(model, 1e-2, 1e-3, 0.1).values())
    assert [id(p) for p in muon] == [id(model["blocks"].weight)]
    assert {id(p) for p in adamw} == {id(p) for p in model.parameters()} - {id(model["blocks"].weight)}


def test_what_may_lie_whole_beside_what_is_spread_has_a_group_of_its_own():
    model = tiny("causal")
    named = dict(model.named_parameters())
    sharded, replicated = (group["params"] for group in adamw(named.items(), 1e-3, (0.9, 0.999), 0.1).param_groups)
    assert sorted(map(id, [*sharded, *replicated])) == sorted(map(id, named.values()))
    of_a_layer = (
        "modulation",
        "norm3.weight",
        "norm3.bias",
        *(f"{a}_attn.norm_{b}.weight" for a in ("self", "cross") for b in "qk"),
    )
    layers = range(len(model.blocks))
    assert set(map(id, replicated)) == {id(named[f"blocks.{layer}.{name}"]) for layer in layers for name in of_a_layer}


def test_muon_brings_singular_values_near_one_whatever_the_shape():
    for shape in ((3, 6, 4), (2, 4, 6), (1, 5, 5)):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        values = torch.linalg.svdvals(orthogonal(matrices))
        assert values.min() > 0.5 and values.max() < 1.3
        left, _, right = torch.linalg.svd(matrices, full_matrices=False)
        assert ((left.mT @ orthogonal(matrices) @ right.mT).diagonal(dim1=1, dim2=2) > 0.5).all()


def test_muon_is_the_librarys_but_for_the_librarys_bfloat16():
    ours, theirs = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    theirs.load_state_dict(ours.state_dict())
    before = ours.weight.detach().clone()
    pair = (
        (ours, Muon(ours.parameters(), 1e-2, 0.1)),
        (theirs, torch.optim.Muon(theirs.parameters(), lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")),
    )
    for step in range(4):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        for model, optimizer in pair:
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    moved = (theirs.weight - before).norm()
    assert (ours.weight - theirs.weight).norm() < 0.02 * moved


def test_muon_does_not_magnify_the_last_bit_of_a_gradient():
    """In bfloat16 it does, a thousandfold, which would make a run depend on the world size."""
    gradient = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))
    nudged = gradient + 2**-23 * torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1))
    change = (orthogonal(gradient) - orthogonal(nudged)).norm() / orthogonal(gradient).norm()
    assert change < 1e-5
