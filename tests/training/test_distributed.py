"""Training on several processes: the same numbers on 1, 2 and 4, spread every way, begun on some and ended on others.

Every process group is real (gloo); a spawn costs seconds, so each scenario does all that its processes can show.
"""

import json
import shutil
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import test_steps as steps
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, load

from filmstill.diffusion.rollout import rollout
from filmstill.models.dit import VideoDiT
from filmstill.models.experts import Experts
from filmstill.models.sharding import gathered, may_be_whole, shard
from filmstill.models.weights import load_model, save_model
from filmstill.params.compute import micro_batches
from filmstill.params.ode_init import OdeInit
from filmstill.runtime import distributed, randomness
from filmstill.training.checkpoint import Checkpoints
from filmstill.training.distillation import train_distillation
from filmstill.training.ode_init import train_ode_init
from filmstill.training.pairs import Pairs
from goldens import TINY, tiny
from processes import run_on

CLOSE = 1e-5
MOVED_ALIKE = 1e-3
BATCH = 4


class Stopped(Exception):
    """Where a training is cut off."""


@dataclass(frozen=True)
class Cut:
    """A training in `folder`, in passes of `micro_batch`, that ends before step `before`, or at its end."""

    folder: Path
    micro_batch: int | None = None
    before: int | None = None


def own_micro_batches(cut: Cut) -> list[range]:
    return micro_batches(BATCH, cut.micro_batch, "batch", distributed.rank(), distributed.world_size())


def distil(cut: Cut) -> None:
    """Self-Forcing of tiny networks; writes the losses and the averaged generator."""
    generator, critic, _ = models = steps.networks()
    for model in (generator, critic):
        model.requires_grad_(True)
    for model in models:
        shard(model, "cpu")
    run = steps.distillation(models, None, checkpoint_every=1, lr=1e-3, critic_lr=1e-3)
    run.micro_batches, step = own_micro_batches(cut), run.step

    def until(index: int) -> dict[str, float]:
        if index == cut.before:
            raise Stopped
        return step(index)

    run.step = until
    try:
        losses = train_distillation(cut.folder, run, lambda path: None)
    except Stopped:
        return
    save_model(cut.folder / "student.safetensors", run.ema.tensors(), TINY, {})
    if distributed.is_rank0():
        (cut.folder / "losses.json").write_text(json.dumps(losses))


def regress(cut: Cut) -> None:
    """ODE initialisation with Muon and AdamW; writes the losses and the weights."""
    trajectories = randomness.normal((3, *steps.SHAPE), 0, "pairs", 0, range(5))
    sigmas = torch.cat([steps.SCHEDULE.nodes(2), torch.zeros(1, dtype=torch.float64)])
    pairs = Pairs(sigmas, steps.PROMPTS, steps.SHAPE, [(trajectories, row) for row in range(5)])
    model = shard(tiny("causal").requires_grad_(True), "cpu")
    params = OdeInit(steps=4, batch=BATCH, checkpoint_every=1)
    given = (params, pairs, steps.ROLLOUT.attention, 2, steps.SCHEDULE, model, steps.ENCODER, 0, own_micro_batches(cut))
    losses = train_ode_init(cut.folder, *given, lambda path: None)
    save_model(cut.folder / "student.safetensors", model.state_dict(), TINY, {})
    if distributed.is_rank0():
        (cut.folder / "losses.json").write_text(json.dumps(losses))


def both(folder: Path, micro_batch: int | None = None) -> None:
    distil(Cut(folder / "distil", micro_batch))
    regress(Cut(folder / "regress", micro_batch))


def ended(folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, and all that the last checkpoint holds: networks, average, optimizers."""
    checkpoint = HuggingFaceStorageReader(str(folder / "checkpoints/step-0000004"))
    held = checkpoint.read_metadata().state_dict_metadata
    state = {name: torch.zeros(entry.size, dtype=entry.properties.dtype) for name, entry in held.items()}
    load(state, storage_reader=checkpoint, no_dist=True)
    return json.loads((folder / "losses.json").read_text()), state


def assert_close(folder: Path, expected: Path) -> None:
    """Losses, the student and its clips to 1e-5; of the last checkpoint every tensor to 1e-5 of its largest number, but
    weights in training by how far they have moved, since AdamW makes a whole step of a gradient near nothing, whatever
    its last bits are."""
    (losses, state), (wanted, theirs) = ended(folder), ended(expected)
    assert losses == pytest.approx(wanted, rel=CLOSE)
    students = [load_model(each / "student.safetensors")[0] for each in (folder, expected)]
    for name, weight in students[1].state_dict().items():
        assert (students[0].get_parameter(name) - weight).abs().max() <= CLOSE
    ours, others = map(clips, students)
    assert (ours - others).abs().max() <= CLOSE * others.abs().max()
    assert state.keys() == theirs.keys() and {"model", "optimizer"} <= {name.split("/")[0] for name in state}
    start = {"student": tiny("causal"), "generator": tiny("causal"), "critic": tiny("bidir")}
    for name, tensor in state.items():
        kind, network, parameter = name.split("/", 2)
        if kind == "model":
            moved = theirs[name] - start[network].get_parameter(parameter)
            assert (tensor - theirs[name]).norm() <= MOVED_ALIKE * moved.norm(), name
        else:
            assert (tensor - theirs[name]).abs().max() <= CLOSE * theirs[name].abs().max(), name


def clips(student: VideoDiT) -> Tensor:
    """Two clips that a student rolls out, [2, F, C, H, W]."""
    noise = randomness.normal((steps.ROLLOUT.noises, *steps.SHAPE), 0, "clips", 0, range(2))
    text = student.read_text(steps.ENCODER.encode(steps.PROMPTS[:2]))
    return torch.cat(list(rollout(student, text, noise, steps.ROLLOUT)), dim=1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Both trainings in one process, the whole batch a pass."""
    folder = tmp_path_factory.mktemp("alone")
    both(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """All that two processes can show, networks spread over both; a third training ends there before its third step."""
    folder = tmp_path_factory.mktemp("two")
    run_on(2, by_two, folder)
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory, two: Path) -> Path:
    """On two nodes of two processes, networks whole on each node; the third training goes on for a step."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(two / "cut", folder / "cut")
    run_on(4, by_four, folder, sharding="hybrid", per_node=2)
    return folder


def by_two(folder: Path) -> None:
    both(folder)
    distil(Cut(folder / "cut", before=2))
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
    save_update(folder)


def by_two_with_whole_networks(folder: Path) -> None:
    both(folder, 1)
    save_update(folder)


def save_update(folder: Path) -> None:
    save_file(first_update(), folder / f"update-{distributed.rank()}")


@pytest.mark.parametrize("training", ["distil", "regress"])
def test_two_processes_train_as_one(alone, two, training):
    assert_close(two / training, alone / training)


@pytest.mark.parametrize("training", ["distil", "regress"])
def test_two_nodes_of_two_processes_train_as_one(alone, four, training):
    assert_close(four / training, alone / training)


@pytest.mark.parametrize("training", ["distil", "regress"])
def test_networks_spread_over_four_processes_train_as_one(alone, four_spread, training):
    assert_close(four_spread / training, alone / training)


@pytest.fixture(scope="module")
def four_spread(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("four-spread")
    run_on(4, both, folder)
    return folder


@pytest.fixture(scope="module")
def two_whole(tmp_path_factory) -> Path:
    """On two processes with whole networks on each, in two passes."""
    folder = tmp_path_factory.mktemp("two-whole")
    run_on(2, by_two_with_whole_networks, folder, sharding="none")
    return folder


@pytest.mark.parametrize("training", ["distil", "regress"])
def test_whole_networks_on_each_of_two_processes_in_two_passes_train_as_one(alone, two_whole, training):
    assert_close(two_whole / training, alone / training)


def test_accumulated_over_four_passes_is_the_batch_in_one(tmp_path, alone):
    both(tmp_path, 1)
    for training in ("distil", "regress"):
        assert_close(tmp_path / training, alone / training)


def test_a_run_goes_on_on_other_numbers_of_processes(tmp_path, alone, two, four):
    """Two processes, then four, then one: every checkpoint is read by as many as are there."""
    assert len(list((two / "cut/checkpoints/step-0000002").glob("*.safetensors"))) == 2
    shutil.copytree(four / "cut", tmp_path / "cut")
    assert max(path.name for path in (tmp_path / "cut/checkpoints").glob("step-*")) == "step-0000003"
    distil(Cut(tmp_path / "cut"))
    assert_close(tmp_path / "cut", alone / "distil")


def same_answers(folder: Path) -> None:
    """Networks spread over processes answer as they do alone, to the bit."""
    x = randomness.normal(steps.SHAPE, 0, "x", distributed.rank(), range(2))
    t = torch.tensor([900.0, 300.0] if distributed.is_rank0() else [200.0, 100.0])
    text = steps.ENCODER.encode(steps.PROMPTS[:2])
    for precision in (torch.float32, torch.bfloat16):
        answers = []
        for spread in (False, True):
            high, low = tiny("bidir"), tiny("causal")
            for model in (high, low):
                model.precision = precision
                model.freeze()
                if spread:
                    shard(model, "cpu")
                    held = sum(distributed.local_tensor(p).numel() for p in model.parameters())
                    assert held <= 0.6 * sum(p.numel() for p in model.parameters())
            experts = Experts(high, low, 500.0, torch.device("cpu"))
            with gathered(high):
                answers.append(torch.cat([high(x, t, high.read_text(text)), experts(x, t, experts.read_text(text))]))
        name = f"{precision}-{distributed.rank()}".removeprefix("torch.")
        save_file({"alone": answers[0], "spread": answers[1]}, folder / name)


def damage_is_everybodys(folder: Path) -> None:
    """A part that one process finds damaged sends all of them to the checkpoint before, and is told once."""
    tensors = {"x": torch.zeros(3, 2)}
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, {"x": tensors["x"] + step})
        checkpoints.wait()
    if distributed.is_rank0():
        part = max((folder / "step-0000002").glob("*.safetensors"))
        part.write_bytes(part.read_bytes()[:-1] + b"\xff")
    distributed.barrier()
    with redirect_stderr(StringIO()) as said:
        assert checkpoints.load_latest(lambda: tensors) == 1
    assert said.getvalue().count("going on from the checkpoint before it") == distributed.is_rank0()
    assert tensors["x"].eq(1).all()


def first_update() -> dict[str, Tensor]:
    """A bfloat16 step with activation checkpointing, as on GPUs: losses, norm, the generator's weights after it."""
    models = steps.networks(torch.bfloat16, activation_checkpointing=True)
    for model in models:
        model.requires_grad_(model is not models[2])
        shard(model, "cpu")
    run = steps.distillation(models, None)
    run.micro_batches = micro_batches(BATCH, 1, "batch", distributed.rank(), distributed.world_size())
    feed_forward, norm = models[0].blocks[0].ffn[0], models[0].blocks[0].self_attn.norm_q
    computed_with = set()
    for layer in (feed_forward, norm):
        layer.register_forward_pre_hook(lambda module, _x: computed_with.add((module, module.weight.dtype)))
    scalars = run.step(0)
    gathered_in = torch.bfloat16 if distributed.sharding_config() else torch.float32  # which autocast casts
    assert computed_with == {(feed_forward, gathered_in), (norm, torch.float32)}
    weights = {name: distributed.full_tensor(p.detach()) for name, p in models[0].named_parameters()}
    return {"scalars": torch.tensor([scalars[key] for key in ("loss", "critic_loss", "gradient_norm")]), **weights}


def test_spread_networks_answer_as_they_do_alone_to_the_bit(two):
    files = list(two.glob("*float*-?"))
    assert len(files) == 4
    for file in files:
        answers = load_file(file)
        assert torch.equal(answers["alone"], answers["spread"])


@pytest.mark.parametrize("layout", ["two", "four", "two_whole"])
def test_an_update_in_bfloat16_is_that_of_one_process(layout, request):
    folder = request.getfixturevalue(layout)
    alone, (first, *others) = first_update(), [load_file(path) for path in sorted(folder.glob("update-?"))]
    torch.testing.assert_close(first["scalars"], alone["scalars"], rtol=1e-3, atol=0)
    assert others and all(torch.equal(first[name], other[name]) for name in alone for other in others)
    before = dict(steps.networks()[0].named_parameters())
    for kept_whole in (True, False):
        names = [name for name in before if may_be_whole(name) is kept_whole]
        ours, theirs = (torch.cat([(w[name] - before[name]).flatten() for name in names]) for w in (alone, first))
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99, kept_whole
