"""Two small trainings that any number of ranks can run, and the comparison of their results."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, load

import tiny_training
from filmstill.diffusion.rollout import rollout
from filmstill.models.dit import VideoDiT
from filmstill.models.sharding import shard
from filmstill.models.weights import load_model, save_model
from filmstill.params.compute import micro_batches
from filmstill.params.ode_init import OdeInit
from filmstill.runtime import distributed, randomness
from filmstill.training.distillation import train_distillation
from filmstill.training.ode_init import OdeRegression, train_ode_init
from filmstill.training.pairs import Pairs
from goldens import TINY, tiny

CLOSE = 1e-5
MOVED_ALIKE = 1e-3
BATCH = 4


class Stopped(Exception):
    """Ends a training before its last step."""


@dataclass(frozen=True)
class Cut:
    """A training in `folder` with forward passes of `micro_batch` samples, stopped before step `before` (None: not)."""

    folder: Path
    micro_batch: int | None = None
    before: int | None = None


def own_micro_batches(cut: Cut) -> list[range]:
    return micro_batches(BATCH, cut.micro_batch, "batch", distributed.rank(), distributed.world_size())


def distil(cut: Cut, **changes: object) -> None:
    """Distil tiny networks; write the losses and the averaged generator. changes: of the parameters."""
    generator, critic, _ = models = tiny_training.networks()
    for model in (generator, critic):
        model.requires_grad_(True)
    for model in models:
        shard(model, "cpu")
    run = tiny_training.distillation(models, cut.micro_batch, checkpoint_every=1, lr=1e-3, critic_lr=1e-3, **changes)
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


def regress(cut: Cut, **changes: object) -> None:
    """ODE initialisation with Muon and AdamW; write the losses and the weights. changes: of the parameters."""
    trajectories = randomness.normal((3, *tiny_training.SHAPE), 0, "pairs", 0, range(5))
    sigmas = torch.cat([tiny_training.SCHEDULE.nodes(2), torch.zeros(1, dtype=torch.float64)])
    pairs = Pairs(sigmas, tiny_training.PROMPTS, tiny_training.SHAPE, [(trajectories, row) for row in range(5)])
    model = shard(tiny("causal").requires_grad_(True), "cpu")
    params = OdeInit(steps=4, batch=BATCH, checkpoint_every=1, **{**tiny_training.PLAIN, **changes})
    attention, schedule, encoder = tiny_training.ROLLOUT.attention, tiny_training.SCHEDULE, tiny_training.ENCODER
    run = OdeRegression(params, pairs, attention, (2, 2), schedule, model, encoder, 0, own_micro_batches(cut))
    losses = train_ode_init(cut.folder, run, lambda path: None)
    save_model(cut.folder / "student.safetensors", model.state_dict(), TINY, {})
    if distributed.is_rank0():
        (cut.folder / "losses.json").write_text(json.dumps(losses))


def both(folder: Path, micro_batch: int | None = None) -> None:
    """Run both trainings to their end: on clips, on longer rollouts or chained trajectories, on rollouts carried on."""
    distil(Cut(folder / "distil", micro_batch))
    distil(Cut(folder / "long", micro_batch), **tiny_training.LONG)
    distil(Cut(folder / "carried", micro_batch), **tiny_training.CARRIED)
    regress(Cut(folder / "regress", micro_batch))
    regress(Cut(folder / "chained", micro_batch), clips=2, clean_share=0.3)


def ended(folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """The losses, and the tensors of the last checkpoint: networks, average, optimizers."""
    checkpoint = HuggingFaceStorageReader(str(folder / "checkpoints/step-0000004"))
    saved = checkpoint.read_metadata().state_dict_metadata
    state = {name: torch.zeros(entry.size, dtype=entry.properties.dtype) for name, entry in saved.items()}
    load(state, storage_reader=checkpoint, no_dist=True)
    return json.loads((folder / "losses.json").read_text()), state


def assert_close(folder: Path, expected: Path) -> None:
    """Compare losses, the student and its clips to 1e-5, and the last checkpoint's tensors to 1e-5 of their maximum.

    Weights in training are compared relative to the distance they have moved: AdamW makes a full-size step even of a
    gradient near zero, whose sign depends on rounding.
    """
    (losses, state), (expected_losses, expected_state) = ended(folder), ended(expected)
    assert losses == pytest.approx(expected_losses, rel=CLOSE)
    students = [load_model(each / "student.safetensors")[0] for each in (folder, expected)]
    for name, weight in students[1].state_dict().items():
        assert (students[0].get_parameter(name) - weight).abs().max() <= CLOSE
    ours, others = map(clips, students)
    assert (ours - others).abs().max() <= CLOSE * others.abs().max()
    assert state.keys() == expected_state.keys() and {"model", "optimizer"} <= {name.split("/")[0] for name in state}
    start = {"student": tiny("causal"), "generator": tiny("causal"), "critic": tiny("bidir")}
    for name, tensor in state.items():
        kind, network, *parameter = name.split("/", 2)
        if kind == "model":
            moved = expected_state[name] - start[network].get_parameter(*parameter)
            assert (tensor - expected_state[name]).norm() <= MOVED_ALIKE * moved.norm(), name
        else:
            assert (tensor - expected_state[name]).abs().max() <= CLOSE * expected_state[name].abs().max(), name


def clips(student: VideoDiT) -> Tensor:
    """Latents [2, F, C, H, W] of two clips that a student rolls out."""
    noise = randomness.normal((tiny_training.ROLLOUT.noises, *tiny_training.SHAPE), 0, "clips", 0, range(2))
    text = student.read_text(tiny_training.ENCODER.encode(tiny_training.PROMPTS[:2]))
    return torch.cat(list(rollout(student, text, noise, tiny_training.ROLLOUT)), dim=1)
