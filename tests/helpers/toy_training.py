"""A training of a toy network that takes a moment, and checks of its files, for the tests of the training loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from filmstill.runtime import randomness
from filmstill.training.ema import Ema
from filmstill.training.loop import Intervals, TrainState, train
from filmstill.training.optimizers import muon_and_adamw, set_learning_rate, warmup_then_decay
from filmstill.training.telemetry import StepCost

STEPS, EVERY = 24, 5
COST = StepCost(8, lambda index: 1.0, torch.device("cpu"))
Hook = Callable[[int, dict[str, float]], None]


class Crash(Exception):
    """Stands for kill -9: the loop cannot save."""


class Toy(nn.Module):
    """A network with parameters for both optimizers and always the same initial weights."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 3)
        dice = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=dice)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x)


class NoTelemetry:
    """The interface of Telemetry; does nothing."""

    @staticmethod
    @contextmanager
    def of(_cost: object, _folder: Path) -> Iterator["NoTelemetry"]:
        yield NoTelemetry()

    def add(self, index: int) -> None:
        pass

    def report(self, label: str, steps_left: int) -> None:
        pass


def toy_state() -> TrainState:
    model = Toy()
    return TrainState({"toy": model}, muon_and_adamw(model, 1e-2, 1e-2, weight_decay=0.1), {"toy": Ema(model, 0.9)})


def run(
    folder: Path,
    hook: Hook = lambda index, scalars: None,
    steps: int = STEPS,
    every: int = EVERY,
    draw_sheet: Callable[[Path], None] = lambda path: None,
) -> tuple[list[float], TrainState]:
    """Train in `folder`, resuming as a new process would; return the losses and the final state.

    hook: called after every step with its index and scalars, which it may change; it may raise.
    """
    state = toy_state()
    model, optimizers = state.models["toy"], list(state.optimizers.values())

    def step(index: int) -> dict[str, float]:
        set_learning_rate(optimizers, warmup_then_decay(index, steps, 3, 0.5))
        x = randomness.normal((6,), 0, "toy", index, range(8))
        loss = (model(x) - x[:, :3].sin()).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.emas["toy"].update(model, index)
        scalars = {"loss": loss.item(), "other": float(index)}
        hook(index, scalars)
        return scalars

    return train("toy", folder, Intervals(steps, every, 10), state, step, COST, draw_sheet), state


def last(folder: Path) -> Path:
    """The newest checkpoint's file; a single process writes one shard."""
    (shard,) = max((folder / "checkpoints").glob("step-*")).glob("*.safetensors")
    return shard


def curve(folder: Path, name: str) -> list[str]:
    """Rows of a curve, without the header."""
    return (folder / "curves/plots/metrics" / f"{name}.tsv").read_text().splitlines()[1:]


def assert_same_end(folder: Path, losses: list[float], state: TrainState, whole: tuple) -> None:
    """Losses, last checkpoint, state and curves equal those of the uninterrupted run `whole` bit for bit."""
    assert losses == whole[1]
    assert last(folder).parent.name == last(whole[0]).parent.name
    saved, expected = load_file(last(folder)), load_file(last(whole[0]))
    assert saved.keys() == expected.keys() and all(torch.equal(saved[name], expected[name]) for name in saved)
    ended = state.tensors()
    assert ended.keys() == whole[2].keys()
    assert all(torch.equal(ended[name], whole[2][name]) for name in ended)
    for name in ("loss", "other"):
        assert [int(row.split("\t")[0]) for row in curve(folder, name)] == list(range(STEPS))


def crash_at(*steps: int) -> Hook:
    """A hook that crashes at each of these steps once, in order."""
    waiting = list(steps)

    def hook(index: int, scalars: dict[str, float]) -> None:
        if waiting and index == waiting[0]:
            waiting.pop(0)
            raise Crash

    return hook


def flip(path: Path, position: float) -> None:
    """Flip one bit of a file at `position`, a fraction of its length."""
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.write_bytes(data)
