"""Training on 1, 2 and 4 ranks gives the same numbers, for every sharding, also when resumed on another world size.

Process groups are real (gloo). Spawning takes seconds, so each group of ranks runs all that several tests check.
"""

import shutil
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_training
from filmstill.models.experts import Experts
from filmstill.models.sharding import gathered, may_be_replicated, shard
from filmstill.params.compute import micro_batches
from filmstill.runtime import distributed, randomness
from filmstill.training.checkpoint import Checkpoints
from goldens import tiny
from processes import run_on
from tiny_training import CARRIED, LONG
from trainings import BATCH, Cut, assert_close, both, distil

TRAININGS = ("distil", "long", "carried", "regress", "chained")
by_training = pytest.mark.parametrize("training", TRAININGS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Results of both trainings in one process, with the whole batch per forward pass."""
    folder = tmp_path_factory.mktemp("alone")
    both(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Results of two ranks with networks sharded over both, among them a training stopped before its third step."""
    folder = tmp_path_factory.mktemp("two")
    run_on(2, by_two, folder)
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory, two: Path) -> Path:
    """Results of two nodes of two ranks with hybrid sharding; the stopped training of `two` continues for one step."""
    folder = tmp_path_factory.mktemp("four")
    for cut in ("cut", "cut-long", "cut-carried"):
        shutil.copytree(two / cut, folder / cut)
    run_on(4, by_four, folder, sharding="hybrid", per_node=2)
    return folder


def by_two(folder: Path) -> None:
    both(folder)
    distil(Cut(folder / "cut", before=2))
    distil(Cut(folder / "cut-long", before=2), **LONG)
    distil(Cut(folder / "cut-carried", before=2), **CARRIED)
    same_answers(folder)
    save_update(folder)
    damage_is_everybodys(folder / "checkpoints")
    assert distributed.broadcast(distributed.rank()) == 0
    assert distributed.all_reduce_max(distributed.rank()) == 1
    assert distributed.all_reduce_sum(1.0, distributed.rank()) == [2.0, 1.0]
    assert distributed.first_message(None if distributed.is_rank0() else "the second") == "the second"


def by_four(folder: Path) -> None:
    both(folder)
    distil(Cut(folder / "cut", before=3))
    distil(Cut(folder / "cut-long", before=3), **LONG)
    distil(Cut(folder / "cut-carried", before=3), **CARRIED)
    save_update(folder)


def by_two_with_replicated_networks(folder: Path) -> None:
    both(folder, 1)
    save_update(folder)


def save_update(folder: Path) -> None:
    save_file(first_update(), folder / f"update-{distributed.rank()}")


@by_training
def test_two_processes_train_as_one(alone, two, training):
    assert_close(two / training, alone / training)


@by_training
def test_two_nodes_of_two_processes_train_as_one(alone, four, training):
    assert_close(four / training, alone / training)


@by_training
def test_networks_sharded_over_four_ranks_train_as_one(alone, four_sharded, training):
    assert_close(four_sharded / training, alone / training)


@pytest.fixture(scope="module")
def four_sharded(tmp_path_factory) -> Path:
    """Results of four ranks with networks sharded over all of them."""
    folder = tmp_path_factory.mktemp("four-sharded")
    run_on(4, both, folder)
    return folder


@pytest.fixture(scope="module")
def two_replicated(tmp_path_factory) -> Path:
    """Results of two ranks with replicated networks and two micro-batches each."""
    folder = tmp_path_factory.mktemp("two-whole")
    run_on(2, by_two_with_replicated_networks, folder, sharding="none")
    return folder


@by_training
def test_whole_networks_on_each_of_two_processes_in_two_passes_train_as_one(alone, two_replicated, training):
    assert_close(two_replicated / training, alone / training)


def test_accumulated_over_four_passes_is_the_batch_in_one(tmp_path, alone):
    both(tmp_path, 1)
    for training in TRAININGS:
        assert_close(tmp_path / training, alone / training)


@pytest.mark.parametrize(
    ("cut", "training", "changes"),
    [("cut", "distil", {}), ("cut-long", "long", LONG), ("cut-carried", "carried", CARRIED)],
)
def test_a_run_goes_on_on_other_numbers_of_processes(tmp_path, alone, two, four, cut, training, changes):
    """A training runs on two ranks, resumes on four, then on one."""
    assert len(list((two / cut / "checkpoints/step-0000002").glob("*.safetensors"))) == 2
    shutil.copytree(four / cut, tmp_path / cut)
    assert max(path.name for path in (tmp_path / cut / "checkpoints").glob("step-*")) == "step-0000003"
    distil(Cut(tmp_path / cut), **changes)
    assert_close(tmp_path / cut, alone / training)


def same_answers(folder: Path) -> None:
    """Write the outputs of networks in one process and sharded over ranks, which must be equal bit for bit."""
    x = randomness.normal(tiny_training.SHAPE, 0, "x", distributed.rank(), range(2))
    t = torch.tensor([900.0, 300.0] if distributed.is_rank0() else [200.0, 100.0])
    text = tiny_training.ENCODER.encode(tiny_training.PROMPTS[:2])
    for precision in (torch.float32, torch.bfloat16):
        answers = []
        for sharded in (False, True):
            high, low = tiny("bidir"), tiny("causal")
            for model in (high, low):
                model.precision = precision
                model.freeze()
                if sharded:
                    shard(model, "cpu")
                    local = sum(distributed.local_tensor(p).numel() for p in model.parameters())
                    assert local <= 0.6 * sum(p.numel() for p in model.parameters())
            experts = Experts(high, low, 500.0, torch.device("cpu"))
            with gathered(high):
                answers.append(torch.cat([high(x, t, high.read_text(text)), experts(x, t, experts.read_text(text))]))
        name = f"{precision}-{distributed.rank()}".removeprefix("torch.")
        save_file({"alone": answers[0], "sharded": answers[1]}, folder / name)


def damage_is_everybodys(folder: Path) -> None:
    """A shard that one rank finds damaged makes all ranks load the previous checkpoint; rank 0 alone warns, once."""
    tensors = {"x": torch.zeros(3, 2)}
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, {"x": tensors["x"] + step})
        checkpoints.wait()
    if distributed.is_rank0():
        damaged = max((folder / "step-0000002").glob("*.safetensors"))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    distributed.barrier()
    with redirect_stderr(StringIO()) as stderr:
        assert checkpoints.load_latest(lambda: tensors) == 1
    assert stderr.getvalue().count("resuming from the checkpoint before it") == distributed.is_rank0()
    assert tensors["x"].eq(1).all()


def first_update() -> dict[str, Tensor]:
    """Scalars and generator weights of one bfloat16 step with activation checkpointing, as on GPUs."""
    models = tiny_training.networks(torch.bfloat16, activation_checkpointing=True)
    for model in models:
        model.requires_grad_(model is not models[2])
        shard(model, "cpu")
    run = tiny_training.distillation(models, None)
    run.micro_batches = micro_batches(BATCH, 1, "batch", distributed.rank(), distributed.world_size())
    feed_forward, norm = models[0].blocks[0].ffn[0], models[0].blocks[0].self_attn.norm_q
    computed_with = set()
    for layer in (feed_forward, norm):
        layer.register_forward_pre_hook(lambda module, _x: computed_with.add((module, module.weight.dtype)))
    scalars = run.step(0)
    gathered_in = torch.bfloat16 if distributed.sharding_config() else torch.float32  # autocast casts float32 weights
    assert computed_with == {(feed_forward, gathered_in), (norm, torch.float32)}
    weights = {name: distributed.full_tensor(p.detach()) for name, p in models[0].named_parameters()}
    return {"scalars": torch.tensor([scalars[key] for key in ("loss", "critic_loss", "gradient_norm")]), **weights}


def test_spread_networks_answer_as_they_do_alone_to_the_bit(two):
    files = list(two.glob("*float*-?"))
    assert len(files) == 4
    for file in files:
        answers = load_file(file)
        assert torch.equal(answers["alone"], answers["sharded"])


@pytest.mark.parametrize("layout", ["two", "four", "two_replicated"])
def test_an_update_in_bfloat16_is_that_of_one_process(layout, request):
    folder = request.getfixturevalue(layout)
    alone, (first, *others) = first_update(), [load_file(path) for path in sorted(folder.glob("update-?"))]
    torch.testing.assert_close(first["scalars"], alone["scalars"], rtol=1e-3, atol=0)
    assert others and all(torch.equal(first[name], other[name]) for name in alone for other in others)
    before = dict(tiny_training.networks()[0].named_parameters())
    for replicated in (True, False):
        names = [name for name in before if may_be_replicated(name) is replicated]
        ours, theirs = (torch.cat([(w[name] - before[name]).flatten() for name in names]) for w in (alone, first))
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99, replicated
