"""The loop around a training step: resume, curves, progress bar, checkpoints, sample sheets, stopping.

Only the state that `TrainState` names is saved; everything else is a function of the step. Training stops,
and names the last good checkpoint, if a scalar or a tensor is not finite or the loss explodes. It writes a checkpoint
before it stops for a signal.
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
from filmstill.runtime.job_folder import record_clean_exit
from filmstill.runtime.progress import progress
from filmstill.runtime.stopwatch import part
from filmstill.training.checkpoint import Checkpoints
from filmstill.training.curves import Curves
from filmstill.training.ema import Ema
from filmstill.training.stopping import SAVE_AND_CONTINUE, deferred_signals
from filmstill.training.telemetry import StepCost, Telemetry

EXPLOSION_FACTOR = 100.0  # a loss above this many times the median of the last WINDOW steps has exploded
WINDOW = 50
MIN_LOSSES = 10  # steps before that median is compared with


@dataclass
class TrainState:
    """Everything that a resumed run restores, by name.

    buffers: functions that return a tensor, the same on all ranks; collective.
    """

    models: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    emas: dict[str, Ema] = field(default_factory=dict)
    buffers: dict[str, Callable[[], Tensor]] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """All state by flat names: model/<name>/…, ema/<name>/…, optimizer/<name>/<parameter number>/<key>,
        buffer/<name>. Collective: every rank must call it."""
        flat: dict[str, Tensor] = {}
        for name, model in self.models.items():
            flat |= {f"model/{name}/{key}": value for key, value in model.state_dict().items()}
        for name, ema in self.emas.items():
            flat |= {f"ema/{name}/{key}": value for key, value in ema.tensors().items()}
        for name, optimizer in self.optimizers.items():
            for i, state in optimizer.state_dict()["state"].items():
                flat |= {f"optimizer/{name}/{i}/{key}": value for key, value in state.items()}
        flat |= {f"buffer/{name}": buffer() for name, buffer in self.buffers.items()}
        return flat

    def allocated(self) -> dict[str, Tensor]:
        """The same tensors before the first step, for a checkpoint to be loaded into: allocates optimizer state."""
        for optimizer in self.optimizers.values():
            _allocate(optimizer)
        return self.tensors()


@dataclass(frozen=True)
class Intervals:
    """Number of steps to train, and the number of steps between checkpoints and between sample sheets."""

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
    """Run `step(0)` … `step(steps - 1)`, resuming from the newest checkpoint in `folder`; return every step's loss.

    Collective: every rank must call it.
    step: trains one step and returns scalars, `loss` among them, equal on all ranks. cost: a step's work (telemetry).
    draw_sheet: writes a sheet of samples to a path; called without gradients.
    Raises FilmstillError if a scalar is not finite or the loss explodes, Interrupted if a signal ended the run.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    done = checkpoints.load_latest(state.allocated)
    curves = Curves(folder / "curves") if is_rank0() else None
    losses = broadcast(curves.values("loss") if curves else [])
    with closing(checkpoints), deferred_signals() as poll_signals, Telemetry.of(cost, folder) as telemetry:
        with progress(label, intervals.steps, done) as bar:
            for index in range(done, intervals.steps):
                scalars = step(index)
                stop = poll_signals()  # before the step writes anything: exits here if the job was started again
                _check(label, scalars, losses[-WINDOW:], index, checkpoints)
                losses.append(scalars["loss"])
                if curves:
                    curves.log(index, scalars)
                bar.update()
                bar.set_postfix(loss=f"{scalars['loss']:.4g}", refresh=False)
                telemetry.add(index)
                finished = index + 1
                # Before the checkpoint: a run that resumed from it would never draw a sheet that was still missing.
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
                        record_clean_exit()
                if stop > SAVE_AND_CONTINUE and finished < intervals.steps:
                    raise Interrupted(f"{label}: stopped after step {finished}; `dvc repro` resumes from there", stop)
        checkpoints.wait()
    if curves:
        curves.close()
    return losses


def _save(label: str, checkpoints: Checkpoints, state: TrainState, curves: Curves | None, finished: int) -> None:
    """Start writing a checkpoint, after checking its tensors and putting the curves up to it on disk."""
    tensors = state.tensors()
    _check_tensors(label, tensors, finished - 1, checkpoints)
    if curves:
        curves.flush()
    checkpoints.save(finished, tensors)


def _allocate(optimizer: Optimizer) -> None:
    """Make an optimizer allocate its state: a step with zero gradients and learning rate 0 changes no parameter."""
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
    """Raise FilmstillError if a tensor is not finite: a step's loss is computed before its update."""
    not_finite = (name for name, tensor in tensors.items() if not local_tensor(tensor).isfinite().all())
    if name := first_message(next(not_finite, None)):
        raise FilmstillError(
            f"{label}: {name} is not finite after step {index}; stopped, the last good checkpoint is step "
            f"{checkpoints.newest()}: lower the learning rate, or look at the curves beside it"
        )


def _check(label: str, scalars: dict[str, float], recent: list[float], index: int, checkpoints: Checkpoints) -> None:
    """Raise FilmstillError if a scalar is not finite, or the loss exceeds EXPLOSION_FACTOR times the recent median."""
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise FilmstillError(
                f"{label}: {name} is {value} at step {index}; stopped, the last good checkpoint is step "
                f"{checkpoints.newest()}: lower the learning rate, or look at the curves beside it"
            )
    if len(recent) >= MIN_LOSSES and abs(scalars["loss"]) > EXPLOSION_FACTOR * (usual := median(map(abs, recent))):
        raise FilmstillError(
            f"{label}: the loss is {scalars['loss']:.3g} at step {index}, over {EXPLOSION_FACTOR:g} times the usual "
            f"{usual:.3g}; stopped, the last good checkpoint is step {checkpoints.newest()}: lower the learning rate"
        )
