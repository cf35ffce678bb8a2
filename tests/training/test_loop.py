"""The training loop after a crash, with damaged checkpoints, and with bad losses."""

import errno
import logging
import random
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from filmstill.errors import FilmstillError
from filmstill.training.checkpoint import Checkpoints
from filmstill.training.loop import EXPLOSION_FACTOR, WINDOW, Intervals, train
from toy_training import COST, STEPS, Crash, assert_same_end, crash_at, curve, flip, last, run, toy_state


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == logging.WARNING]


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
    assert len(curve(tmp_path, "loss")) == 13  # three more than at the checkpoint of step 10
    metrics = tmp_path / "curves/plots/metrics"
    with (metrics / "loss.tsv").open("a") as file:
        file.write("13\t0.0")
    with (metrics / "other.tsv").open("a") as file:
        file.write("1")  # half of "13": looks like an earlier step, but is not a complete row
    losses, state = run(tmp_path)
    assert_same_end(tmp_path, losses, state, whole)


@pytest.mark.parametrize("position", [0.001, 0.3, 0.9])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, whole, filmstill_log, position):
    with pytest.raises(Crash):
        run(tmp_path, crash_at(13))
    newest = last(tmp_path)
    assert newest.parent.name == "step-0000010"
    flip(newest, position)
    began = []
    losses, state = run(tmp_path, lambda index, scalars: began.append(index))
    assert began[0] == 5
    assert newest.parent.name in warnings_in(filmstill_log)[0]
    assert_same_end(tmp_path, losses, state, whole)


def test_with_every_checkpoint_damaged_training_starts_over(tmp_path, whole, filmstill_log):
    with pytest.raises(Crash):
        run(tmp_path, crash_at(13))
    for path in (tmp_path / "checkpoints").glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    began = []
    losses, state = run(tmp_path, lambda index, scalars: began.append(index))
    assert began[0] == 0
    assert len(warnings_in(filmstill_log)) == 2
    assert_same_end(tmp_path, losses, state, whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, whole):
    name, tensor = next((key, value) for key, value in whole[2].items() if value.ndim == 2)
    for wrong in ({"x": torch.zeros(3)}, {**whole[2], name: tensor[:1]}):
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(5, wrong)
        checkpoints.wait()
        with pytest.raises(FilmstillError, match="step-0000005: is not a checkpoint of this training") as error:
            run(tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("loss", float("nan")), ("loss", float("inf")), ("other", float("nan"))])
def test_a_number_that_is_not_finite_stops_at_the_last_good_checkpoint(tmp_path, name, value):
    def hook(index: int, scalars: dict[str, float]) -> None:
        if index == 12:
            scalars[name] = value

    for _ in range(2):  # running it again stops in the same way
        with pytest.raises(FilmstillError, match=rf"toy: {name} is {value} at step 12.*checkpoint is step 10") as error:
            run(tmp_path, hook)
        assert "\n" not in str(error.value)
    assert last(tmp_path).parent.name == "step-0000010"


def test_an_exploding_loss_stops_even_right_after_a_resume(tmp_path):
    def explode(index: int, scalars: dict[str, float]) -> None:
        if index == WINDOW + 4:
            scalars["loss"] = 2 * EXPLOSION_FACTOR * first[0]

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
    """Step 12 has a finite loss and an infinite update: its weights must not become the last good checkpoint."""
    state = toy_state()

    def step(index: int) -> dict[str, float]:
        weight = state.models["toy"].head.weight
        with torch.no_grad():
            loss = weight.sum().item()
            weight += float("inf") if index == 12 else 0.0
        return {"loss": loss}

    with pytest.raises(FilmstillError, match="last good checkpoint is step 12"):
        train("toy", tmp_path, Intervals(STEPS, 1, 100), state, step, COST, lambda path: None)
    assert last(tmp_path).parent.name == "step-0000012"


def test_sheets_come_at_their_rhythm_and_at_the_end(tmp_path):
    drawn: list[str] = []
    run(tmp_path, draw_sheet=lambda path: drawn.append(path.name))
    assert drawn == ["step-0000010.png", "step-0000020.png", "step-0000024.png"]


def test_a_save_without_room_is_one_line_and_leaves_nothing(tmp_path, whole, monkeypatch):
    """The library raises CheckpointException, a BaseException, which no handler of Exception would catch."""
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
    checkpoints.close()  # does not raise the error of the save
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["step-0000001"]
    assert checkpoints.load_latest(lambda: {name: tensor.clone() for name, tensor in whole[2].items()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]


def test_a_checkpoint_that_cannot_be_read_now_is_not_given_up(tmp_path, whole, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, whole[2])
    checkpoints.wait()

    def stale(path: Path) -> str:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr("filmstill.training.checkpoint_folder.sha256_of", stale)
    with pytest.raises(FilmstillError, match="cannot be read here"):
        checkpoints.load_latest(lambda: whole[2])
    assert (tmp_path / "step-0000001").is_dir()
