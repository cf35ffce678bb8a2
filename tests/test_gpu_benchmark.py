"""The rows of `make bench-gpu`, in miniature: their operations are those counted while they run."""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch

from counting import counted
from filmstill.training.distillation import Distillation
from gpu_benchmark import ROUNDS, STEPS, TINY, Bench, forward, matrix_rate, measure, stream, updates

SIZE = "latents 6×16×4×6"
NAMES = [
    f"small forward, {SIZE}",
    f"large forward, {SIZE}",
    f"stream of 2 blocks, {STEPS} steps",
    "critic update, micro-batch 1, checkpointing",
    "generator update, micro-batch 1, checkpointing",
]


class Counting(Bench):
    """Returns the operations of an action where a benchmark expects its seconds."""

    def seconds(self, action: Callable[[], object]) -> float:
        return counted(action)


COUNTING = Counting(**{**asdict(TINY), "small": TINY.small, "large": TINY.large})


def assert_rows(rate: float, rows: list[tuple[str, float, float, str]], names: list[str]) -> dict[str, str]:
    """Every row has positive finite numbers; returns the remarks by name."""
    assert math.isfinite(rate) and rate > 0
    assert [name for name, *_ in rows] == names
    for name, seconds, operations, _remark in rows:
        assert math.isfinite(seconds) and seconds > 0, name
        assert math.isfinite(operations) and operations > 0, name
    return {name: remark for name, *_, remark in rows}


def test_every_row_is_named_and_remarked():
    rate, rows = measure(TINY)
    remarks = assert_rows(rate, rows, NAMES)
    assert [remarks[name] for name in NAMES[:2]] == ["", ""]
    assert [remarks[name] for name in NAMES[3:]] == ["peak nan GiB"] * 2  # a CPU keeps no count
    found = re.fullmatch(r"(\d+\.\d) frames per second without VAE; seconds by block: ([\d., ]+)", remarks[NAMES[2]])
    seconds = dict(row[:2] for row in rows)[NAMES[2]]
    assert found and float(found[1]) == pytest.approx(21 / seconds, abs=0.05)  # Wan's VAE: 1 + 4 * 5 frames
    by_block = [float(word) for word in found[2].split(", ")]
    assert len(by_block) == 2 and sum(by_block) == pytest.approx(seconds, abs=0.0011)  # two numbers, three decimals


def test_the_rate_is_that_of_a_product_of_square_matrices():
    assert matrix_rate(COUNTING) == 1.0  # as many operations as were counted
    assert matrix_rate(replace(COUNTING, matrix=32)) == 1.0


@pytest.mark.parametrize("config", [TINY.small, TINY.large], ids=["small", "large"])
def test_a_forward_pass_has_the_operations_counted(config):
    operations, expected = forward(COUNTING, config)
    assert operations == expected > 0


def test_a_stream_has_the_operations_counted():
    streamed: list[tuple[list[float], float]] = []
    operations = counted(lambda: streamed.append(stream(TINY)))
    times, expected = streamed[0]
    assert operations == 2 * expected > 0  # it streams twice, to warm up
    assert len(times) == 2 and 0 < times[0] < times[1]


def test_updates_have_the_operations_counted(monkeypatch: pytest.MonkeyPatch):
    """Mean of the updates that are timed: the first one warms up."""
    found: dict[str, list[int]] = defaultdict(list)
    for name in ("critic", "generator"):
        own = getattr(Distillation, f"_update_{name}")

        def update(run: Distillation, *given: object, own=own, name=name) -> object:
            results: list[object] = []
            found[name].append(counted(lambda: results.append(own(run, *given))))
            return results[0]

        monkeypatch.setattr(Distillation, f"_update_{name}", update)
    rows = updates(TINY)
    assert set(rows) == {"critic", "generator"}
    for name, (_seconds, operations, _peak) in rows.items():
        assert len(found[name]) == 5
        assert operations == sum(found[name][1:]) / 4 > 0


def test_seconds_are_the_median_of_the_rounds_after_the_first(monkeypatch: pytest.MonkeyPatch):
    """By a clock that only the action moves: the first call takes 100 s, then 1, 2, 3 …"""
    now, calls = [0.0], []

    def action() -> None:
        now[0] += len(calls) or 100
        calls.append(1)

    monkeypatch.setattr(Bench, "clock", lambda self: now[0])
    assert TINY.seconds(action) == (ROUNDS + 1) / 2 and len(calls) == ROUNDS + 1


@pytest.mark.gpu
def test_every_row_is_measured_on_a_gpu():
    rate, rows = measure(replace(TINY, device="cuda", precision=torch.bfloat16))
    names = [NAMES[0], f"small forward, layers compiled, {SIZE}", *NAMES[1:]]
    remarks = assert_rows(rate, rows, names)
    assert all(re.fullmatch(r"peak \d+\.\d GiB", remarks[name]) for name in names[-2:])
