"""The loop around a training step: resume, curves, progress, checkpoints, and when to stop.

Notable: state is what `TrainState` names, everything else is a function of the step; the loop stops at the
last good checkpoint when the loss is not finite or explodes, and writes one when it is told to stop.
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.distributed import broadcast, first_message, is_rank0, local_tensor
from filmstill.runtime.job_folder import note_leave
from filmstill.runtime.progress import progress
from filmstill.runtime.stopwatch import part
from filmstill.training.checkpoint import Checkpoints
from filmstill.training.curves import Curves
from filmstill.training.ema import Ema
from filmstill.training.stopping import SAVE, stop_requested
from filmstill.training.telemetry import StepCost, Telemetry

EXPLODES = 100.0  # times the median loss of the last WINDOW steps
WINDOW = 50
LEAST = 10  # steps before a usual loss can be told


@dataclass
class TrainState:
    """All that a resumed run must find again, by name."""

    models: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    emas: dict[str, Ema] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Flat names: model/<name>/…, ema/<name>/…, optimizer/<name>/<parameter number>/<key>."""
        flat: dict[str, Tensor] = {}
        for name, model in self.models.items():
            flat |= {f"model/{name}/{key}": value for key, value in model.state_dict().items()}
        for name, ema in self.emas.items():
            flat |= {f"ema/{name}/{key}": value for key, value in ema.tensors().items()}
        for name, optimizer in self.optimizers.items():
            for i, state in optimizer.state_dict()["state"].items():
                flat |= {f"optimizer/{name}/{i}/{key}": value for key, value in state.items()}
        return flat

    def allocated(self) -> dict[str, Tensor]:
        """The same names when the optimizers hold nothing yet: what a checkpoint is read into."""
        for optimizer in self.optimizers.values():
            _allocate(optimizer)
        return self.tensors()


@dataclass(frozen=True)
class Intervals:
    """How long to train and how often to save and to show samples, in steps."""

    steps: int
    checkpoint_every: int
    sheet_every: int


def train(
    label: str,
    folder: Path,
    intervals: Intervals,
    state: TrainState,
    step: Callable[[int], dict[str, float]],
    cost: StepCost,
    draw_sheet: Callable[[Path], None],
) -> list[float]:
    """Run `step(0)` … `step(steps - 1)` from wherever `folder` says the run stands, on every process of a job.

    step: trains once and returns scalars, `loss` among them, the same on every process. cost: what a step does.
    draw_sheet: writes a picture of samples to a path. Returns the loss of every step.
    Raises FilmstillError when the loss is not finite or explodes, Interrupted when told to stop.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    done = checkpoints.load_latest(state.allocated)
    curves = Curves(folder / "curves", done) if is_rank0() else None
    losses = broadcast(curves.values("loss") if curves else [])
    with closing(checkpoints), stop_requested() as stopping, Telemetry.of(cost, folder) as telemetry:
        with progress(label, intervals.steps, done) as bar:
            for index in range(done, intervals.steps):
                scalars = step(index)
                stop = stopping()  # once a step, before it leaves a trace: this start may have been given up
                _check(label, scalars, losses[-WINDOW:], index, checkpoints)
                losses.append(scalars["loss"])
                if curves:
                    curves.log(index, scalars)
                bar.update()
                bar.set_postfix(loss=f"{scalars['loss']:.4g}", refresh=False)
                telemetry.add(index)
                finished = index + 1
                # The sheet comes before the checkpoint: a run that resumes past a sheet would never draw it.
                if finished % intervals.sheet_every == 0 or finished == intervals.steps:
                    with part("sheets"), torch.no_grad():
                        draw_sheet(folder / "sheets" / f"step-{finished:07d}.png")
                if finished % intervals.checkpoint_every == 0 or finished == intervals.steps or stop:
                    with part("saving"):
                        _save(label, checkpoints, state, curves, finished)
                    telemetry.report(label, intervals.steps - finished)
                if stop:
                    checkpoints.wait()
                    if is_rank0():
                        note_leave()
                if stop > SAVE and finished < intervals.steps:
                    raise Interrupted(f"{label}: stopped after step {finished}; `dvc repro` goes on from there", stop)
        checkpoints.wait()
    if curves:
        curves.close()
    return losses


def _save(label: str, checkpoints: Checkpoints, state: TrainState, curves: Curves | None, finished: int) -> None:
    """Start to write a checkpoint, once what it stands on is known to be good and on disk."""
    tensors = state.tensors()
    _check_tensors(label, tensors, finished - 1, checkpoints)
    if curves:
        curves.flush()
    checkpoints.save(finished, tensors)


def _allocate(optimizer: Optimizer) -> None:
    """Give an optimizer its state by a step that changes nothing."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _check_tensors(label: str, tensors: dict[str, Tensor], index: int, checkpoints: Checkpoints) -> None:
    """A checkpoint is a good one: the loss of a step says nothing of the update that follows it."""
    spoilt = (name for name, tensor in tensors.items() if not local_tensor(tensor).isfinite().all())
    if name := first_message(next(spoilt, None)):
        raise FilmstillError(
            f"{label}: {name} is not finite after step {index}; stopped, the last good checkpoint is step "
            f"{checkpoints.newest()}: lower the learning rate, or look at the curves beside it"
        )


def _check(label: str, scalars: dict[str, float], recent: list[float], index: int, checkpoints: Checkpoints) -> None:
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise FilmstillError(
                f"{label}: {name} is {value} at step {index}; stopped, the last good checkpoint is step "
                f"{checkpoints.newest()}: lower the learning rate, or look at the curves beside it"
            )
    if len(recent) >= LEAST and abs(scalars["loss"]) > EXPLODES * (usual := median(map(abs, recent))):
        raise FilmstillError(
            f"{label}: the loss is {scalars['loss']:.3g} at step {index}, over {EXPLODES:g} times the usual "
            f"{usual:.3g}; stopped, the last good checkpoint is step {checkpoints.newest()}: lower the learning rate"
        )
