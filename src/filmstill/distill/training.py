"""The loop around a training step: resume, curves, progress, checkpoints, and when to stop.

Notable: state is what `TrainState` names, everything else is a function of the step; the loop stops at the
last good checkpoint when the loss is not finite or explodes, and writes one when it is told to stop.
"""

import math
import signal
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from filmstill.distill.ema import Ema
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime.checkpoint import Checkpoints
from filmstill.runtime.curves import Curves
from filmstill.runtime.progress import progress

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

    def load(self, flat: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}

        for name, model in self.models.items():
            model.load_state_dict(under(f"model/{name}/"))
        for name, ema in self.emas.items():
            ema.load(under(f"ema/{name}/"))
        for name, optimizer in self.optimizers.items():
            states: dict[int, dict[str, Tensor]] = {}
            for path, value in under(f"optimizer/{name}/").items():
                i, key = path.split("/")
                states.setdefault(int(i), {})[key] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


@dataclass(frozen=True)
class Rhythm:
    """How long to train and how often to save and to show samples, in steps."""

    steps: int
    checkpoint_every: int
    sheet_every: int


def micro_batches(batch: int, size: int | None) -> list[range]:
    """The samples of a batch in parts of `size` (None: in one), whose gradients are added up."""
    size = size or batch
    return [range(start, min(start + size, batch)) for start in range(0, batch, size)]


def train(
    label: str,
    folder: Path,
    rhythm: Rhythm,
    state: TrainState,
    step: Callable[[int], dict[str, float]],
    draw_sheet: Callable[[Path], None],
) -> list[float]:
    """Run `step(0)` … `step(steps - 1)` from wherever `folder` says the run stands.

    step: trains once and returns scalars, `loss` among them. draw_sheet: writes a picture of samples to a path.
    Returns the loss of every step.
    Raises FilmstillError when the loss is not finite or explodes, Interrupted when told to stop.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    done = 0
    if (found := checkpoints.latest()) is not None:
        done = found[0]
        try:
            state.load(found[1])
        except (RuntimeError, ValueError, KeyError) as error:
            raise FilmstillError(
                f"{checkpoints.folder}: step {done} is no checkpoint of this training "
                f"({' '.join(str(error).split())[:200]}); remove that folder to start anew"
            ) from None
    curves = Curves(folder / "curves", done)
    recent = curves.values("loss")[-WINDOW:]
    saved = done
    with stop_requested() as stopping, progress(label, rhythm.steps, done) as bar:
        for index in range(done, rhythm.steps):
            scalars = step(index)
            _check(label, scalars, recent, index, saved)
            recent = [*recent, scalars["loss"]][-WINDOW:]
            curves.log(index, scalars)
            bar.update()
            bar.set_postfix(loss=f"{scalars['loss']:.4f}", refresh=False)
            finished = index + 1
            stop = stopping()  # asked once a step: a signal that comes later stops after the next one, which is saved
            # The sheet comes before the checkpoint: a run that resumes past a sheet would never draw it.
            if finished % rhythm.sheet_every == 0 or finished == rhythm.steps:
                with torch.no_grad():
                    draw_sheet(folder / "sheets" / f"step-{finished:07d}.png")
            if finished % rhythm.checkpoint_every == 0 or finished == rhythm.steps or stop:
                tensors = state.tensors()
                _check_tensors(label, tensors, index, saved)
                curves.flush()
                checkpoints.save(finished, tensors)
                saved = finished
            if stop and finished < rhythm.steps:
                raise Interrupted(f"{label}: stopped after step {finished}; `dvc repro` goes on from there", stop)
    curves.close()
    return curves.values("loss")


@contextmanager
def stop_requested() -> Iterator[Callable[[], int]]:
    """While the block runs, SIGTERM and Ctrl-C are only noted (0: none yet): the step in hand is finished and saved."""
    asked: list[int] = []
    previous = {
        number: signal.signal(number, lambda n, _frame: asked.append(n)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_tensors(label: str, tensors: dict[str, Tensor], index: int, saved: int) -> None:
    """A checkpoint is a good one: the loss of a step says nothing of the update that follows it."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FilmstillError(
                f"{label}: {name} is not finite after step {index}; stopped, the last good checkpoint is step {saved}: "
                "lower the learning rate, or look at the curves beside it"
            )


def _check(label: str, scalars: dict[str, float], recent: list[float], index: int, saved: int) -> None:
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise FilmstillError(
                f"{label}: {name} is {value} at step {index}; stopped, the last good checkpoint is step {saved}: "
                "lower the learning rate, or look at the curves beside it"
            )
    if len(recent) >= LEAST and abs(scalars["loss"]) > EXPLODES * (usual := statistics.median(map(abs, recent))):
        raise FilmstillError(
            f"{label}: the loss is {scalars['loss']:.3g} at step {index}, over {EXPLODES:g} times the usual "
            f"{usual:.3g}; stopped, the last good checkpoint is step {saved}: lower the learning rate"
        )
