"""The training loop: what a crash, a damaged checkpoint, a bad loss and a signal leave behind."""

import errno
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from filmstill.distill.ema import Ema
from filmstill.distill.optimizers import muon_and_adamw, set_learning_rate, warmup_then_decay
from filmstill.distill.statistics import Worth
from filmstill.distill.training import EXPLODES, WINDOW, Rhythm, TrainState, train
from filmstill.errors import FilmstillError, Interrupted
from filmstill.runtime import randomness
from filmstill.runtime.checkpoint import Checkpoints
from filmstill.runtime.progress import JOB
from filmstill.runtime.stopping import START, is_superseded, stop_requested

STEPS, EVERY = 24, 5
WORTH = Worth(8, lambda index: 1.0, torch.device("cpu"))
Hook = Callable[[int, dict[str, float]], None]


class Crash(Exception):
    """Stands for kill -9: the loop gets no chance to save."""


class Toy(nn.Module):
    """A network with parameters for both optimizers, from the same start each time."""

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
    """Train from wherever `folder` stands, as a new process would. `hook` may change a step's scalars or crash."""
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

    return train("toy", folder, Rhythm(steps, every, 10), state, step, WORTH, draw_sheet), state


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[float], dict[str, Tensor]]:
    """The uninterrupted run: its folder, losses and final state."""
    folder = tmp_path_factory.mktemp("whole")
    losses, state = run(folder)
    return folder, losses, state.tensors()


def last(folder: Path) -> Path:
    """The newest checkpoint's only part: one process wrote it."""
    (part,) = max((folder / "checkpoints").glob("step-*")).glob("*.safetensors")
    return part


def curve(folder: Path, name: str) -> list[str]:
    return (folder / "curves/plots/metrics" / f"{name}.tsv").read_text().splitlines()[1:]


def assert_same_end(folder: Path, losses: list[float], state: TrainState, whole: tuple) -> None:
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
    waiting = list(steps)

    def hook(index: int, scalars: dict[str, float]) -> None:
        if waiting and index == waiting[0]:
            waiting.pop(0)
            raise Crash

    return hook


def flip(path: Path, position: float) -> None:
    """Flip one bit at a relative position of a file."""
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.write_bytes(data)


def test_the_toy_learns_and_state_is_more_than_weights(whole):
    assert whole[1][-1] < 0.7 * whole[1][0]
    kinds = {"/".join(name.split("/")[:2]) for name in whole[2]}
    assert kinds == {"model/toy", "ema/toy", "optimizer/muon", "optimizer/adamw"}


@pytest.mark.parametrize("seed", range(4))
def test_resumed_is_the_uninterrupted_run_bit_for_bit(tmp_path, whole, seed):
    crashes = sorted(random.Random(seed).choices(range(STEPS), k=4))
    hook = crash_at(*crashes)
    for _ in crashes:
        with pytest.raises(Crash):
            run(tmp_path, hook)
    losses, state = run(tmp_path, hook)
    assert_same_end(tmp_path, losses, state, whole)


def test_a_finished_run_does_not_train_again(tmp_path, whole):
    run(tmp_path)
    losses, state = run(tmp_path, crash_at(0))
    assert_same_end(tmp_path, losses, state, whole)


def test_two_checkpoints_are_kept(whole):
    names = sorted(path.name for path in (whole[0] / "checkpoints").iterdir())
    assert names == ["step-0000020", "step-0000024"]


def test_torn_and_late_curve_rows_are_dropped(tmp_path, whole):
    with pytest.raises(Crash):
        run(tmp_path, crash_at(13))
    assert len(curve(tmp_path, "loss")) == 13  # three more than the checkpoint at 10 knows
    metrics = tmp_path / "curves/plots/metrics"
    with (metrics / "loss.tsv").open("a") as file:
        file.write("13\t0.0")
    with (metrics / "other.tsv").open("a") as file:
        file.write("1")  # half of "13": a step of the past, but not a row
    losses, state = run(tmp_path)
    assert_same_end(tmp_path, losses, state, whole)


@pytest.mark.parametrize("position", [0.001, 0.3, 0.9])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, whole, capsys, position):
    with pytest.raises(Crash):
        run(tmp_path, crash_at(13))
    newest = last(tmp_path)
    assert newest.parent.name == "step-0000010"
    flip(newest, position)
    began = []
    losses, state = run(tmp_path, lambda index, scalars: began.append(index))
    assert began[0] == 5
    warning = next(line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert newest.parent.name in warning
    assert_same_end(tmp_path, losses, state, whole)


def test_with_every_checkpoint_damaged_training_starts_over(tmp_path, whole, capsys):
    with pytest.raises(Crash):
        run(tmp_path, crash_at(13))
    for path in (tmp_path / "checkpoints").glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    began = []
    losses, state = run(tmp_path, lambda index, scalars: began.append(index))
    assert began[0] == 0
    assert capsys.readouterr().err.count("warning") == 2
    assert_same_end(tmp_path, losses, state, whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, whole):
    name, tensor = next((key, value) for key, value in whole[2].items() if value.ndim == 2)
    for wrong in ({"x": torch.zeros(3)}, {**whole[2], name: tensor[:1]}):
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(5, wrong)
        checkpoints.wait()
        with pytest.raises(FilmstillError, match="step-0000005: no checkpoint of this training") as error:
            run(tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("loss", float("nan")), ("loss", float("inf")), ("other", float("nan"))])
def test_a_number_that_is_not_finite_stops_at_the_last_good_checkpoint(tmp_path, name, value):
    def hook(index: int, scalars: dict[str, float]) -> None:
        if index == 12:
            scalars[name] = value

    for _ in range(2):  # running it again meets the same end
        with pytest.raises(FilmstillError, match=rf"toy: {name} is {value} at step 12.*checkpoint is step 10") as error:
            run(tmp_path, hook)
        assert "\n" not in str(error.value)
    assert last(tmp_path).parent.name == "step-0000010"


def test_an_exploding_loss_stops_even_right_after_a_resume(tmp_path):
    def explode(index: int, scalars: dict[str, float]) -> None:
        if index == WINDOW + 4:
            scalars["loss"] = 2 * EXPLODES * first[0]

    first = run(tmp_path, steps=WINDOW + 10)[0]
    for folder, crashes in ((tmp_path / "at once", ()), (tmp_path / "resumed", (WINDOW + 3,))):
        for crash in crashes:
            with pytest.raises(Crash):
                run(folder, crash_at(crash), steps=WINDOW + 10)
        with pytest.raises(
            FilmstillError, match=rf"at step {WINDOW + 4}, over 100 times .*checkpoint is step {WINDOW}"
        ):
            run(folder, explode, steps=WINDOW + 10)


def test_a_checkpoint_of_weights_that_are_not_finite_is_not_written(tmp_path):
    """The loss of step 12 is still good, its update is not: 12 must not become the last good checkpoint."""
    state = toy_state()

    def step(index: int) -> dict[str, float]:
        weight = state.models["toy"].head.weight
        with torch.no_grad():
            loss = weight.sum().item()
            weight += float("inf") if index == 12 else 0.0
        return {"loss": loss}

    with pytest.raises(FilmstillError, match="last good checkpoint is step 12"):
        train("toy", tmp_path, Rhythm(STEPS, 1, 100), state, step, WORTH, lambda path: None)
    assert last(tmp_path).parent.name == "step-0000012"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_in_hand_and_stops(tmp_path, whole, number):
    handler, ran = signal.getsignal(number), []

    def hook(index: int, scalars: dict[str, float]) -> None:
        ran.append(index)
        if index == 7 and len(ran) == 8:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped after step 8") as stopped:
        run(tmp_path, hook)
    assert stopped.value.signal == number
    assert signal.getsignal(number) is handler
    assert last(tmp_path).parent.name == "step-0000008"
    losses, state = run(tmp_path, hook)
    assert ran == list(range(STEPS))  # no step twice
    assert_same_end(tmp_path, losses, state, whole)


def test_a_signal_while_the_sheet_is_drawn_loses_nothing(tmp_path):
    """The sheet is drawn after the loop has decided whether to save: what it says it kept must be in a checkpoint."""
    sent = []

    def draw_sheet(path: Path) -> None:
        if not sent:
            sent.append(path)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, every=7, draw_sheet=draw_sheet)
    saved = int(last(tmp_path).parent.name.removeprefix("step-"))
    assert saved > 7
    assert f"stopped after step {saved}" in str(stopped.value)


def test_a_signal_in_the_last_step_is_no_reason_to_fail(tmp_path, whole):
    def hook(index: int, scalars: dict[str, float]) -> None:
        if index == STEPS - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    losses, state = run(tmp_path, hook)
    assert_same_end(tmp_path, losses, state, whole)


def test_sheets_come_at_their_rhythm_and_at_the_end(tmp_path):
    drawn: list[str] = []
    run(tmp_path, draw_sheet=lambda path: drawn.append(path.name))
    assert drawn == ["step-0000010.png", "step-0000020.png", "step-0000024.png"]


def test_processes_that_slurm_has_replaced_stop_without_a_word(tmp_path, monkeypatch):
    """SLURM starts a job again when it loses sight of a node, whose processes may go on: two trainers in one folder."""
    job = tmp_path / "jobs" / "0001"
    job.mkdir(parents=True)
    (job / START).write_text("1")
    assert not is_superseded()  # no job
    monkeypatch.setenv(JOB, str(job))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not is_superseded()
    (job / START).write_text("2")
    assert is_superseded()
    (job / START).write_text("1")
    (tmp_path / "jobs" / "0002").mkdir()
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with stop_requested() as stopping:
        stopping()
    assert left == [1]


def test_a_jobs_sigterm_saves_and_goes_on(tmp_path, whole, monkeypatch):
    """Whoever sent it kills the job soon, or not: the step it came in must be on disk by then."""
    job = tmp_path / "jobs" / "0001"
    job.mkdir(parents=True)
    (job / START).write_text("0")
    monkeypatch.setenv(JOB, str(job))
    seen = []

    def hook(index: int, scalars: dict[str, float]) -> None:
        if index == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append([path.name for path in (tmp_path / "checkpoints").glob("step-*")])

    losses, state = run(tmp_path, hook)
    assert "step-0000008" in seen[8]
    assert (job / "left-0").exists()  # the kill that follows is no loss
    assert_same_end(tmp_path, losses, state, whole)


def test_a_save_without_room_is_one_line_and_leaves_nothing(tmp_path, whole, monkeypatch):
    """The library's own exception for it is no Exception, and would pass by every handler."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, whole[2])
    checkpoints.wait()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", full)
    checkpoints.save(2, whole[2])
    with pytest.raises(FilmstillError, match="step-0000002: disk full while writing"):
        checkpoints.wait()
    checkpoints.save(3, whole[2])
    checkpoints.close()  # for another reason: says nothing of its own
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["step-0000001"]
    assert checkpoints.load_latest(lambda: {name: tensor.clone() for name, tensor in whole[2].items()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]


def test_a_checkpoint_that_cannot_be_read_now_is_not_given_up(tmp_path, whole, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, whole[2])
    checkpoints.wait()

    def stale(path: Path) -> str:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr("filmstill.runtime.checkpoint.sha256_of", stale)
    with pytest.raises(FilmstillError, match="cannot be read here"):
        checkpoints.load_latest(lambda: whole[2])
    assert (tmp_path / "step-0000001").is_dir()
