"""The stopwatch and the telemetry of a run."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import tiny_training
from filmstill.models.sharding import shard
from filmstill.runtime import distributed
from filmstill.runtime.stopwatch import COLLECTIVES, COMMUNICATION, OTHER, Stopwatch, part, watching
from filmstill.training import loop
from filmstill.training.telemetry import FILE, StepCost, Telemetry, summary
from goldens import tiny
from processes import results, run_on
from toy_training import NoTelemetry
from trainings import Cut, distil, ended

CPU = torch.device("cpu")


class Clock:
    """A perf_counter that the test advances, so that the machine's load does not affect measurements."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(time, "perf_counter", clock := Clock())
    return clock


def test_parts_inside_parts_add_up_to_the_whole(clock: Clock):
    watch = Stopwatch(CPU)
    with watch.part("rollout"):
        clock.passes(2)
        with watch.part("data"):
            clock.passes(3)
        clock.passes(1)
    clock.passes(4)
    assert watch.lap() == (10, {"rollout": 3, "data": 3, OTHER: 4})
    clock.passes(5)
    assert watch.lap() == (5, {OTHER: 5})  # every lap starts from zero


def test_a_part_that_fails_is_over():
    with watching(CPU) as watch:
        with pytest.raises(ZeroDivisionError), part("rollout"):
            raise ZeroDivisionError
        watch.lap()
        assert set(watch.lap()[1]) == {OTHER}


def test_nothing_is_timed_where_nobody_watches():
    library = [getattr(dist, name) for name in COLLECTIVES]
    with part("rollout"):
        pass
    with watching(CPU):
        assert all(getattr(dist, name) is not own for name, own in zip(COLLECTIVES, library, strict=True))
    assert [getattr(dist, name) for name in COLLECTIVES] == library


def test_a_collective_that_torch_lacks_costs_no_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(dist, COLLECTIVES[0])
    with watching(CPU) as watch, part("rollout"):
        pass
    assert "rollout" in watch.lap()[1] and not hasattr(dist, COLLECTIVES[0])


def test_what_fsdp2_gathers_and_sums_with_is_timed(tmp_path):
    run_on(2, train_sharded, tmp_path)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"sharded-{rank}").read_text())
        assert found["called"]["all_gather_single"] > 1 and found["called"]["reduce_scatter_single"] > 1
        assert 0 < found["seconds"][COMMUNICATION] < sum(found["seconds"].values())


def train_sharded(folder) -> None:
    """Run a step of a network sharded over both ranks; write the collectives that it called and the seconds by part."""
    called: Counter[str] = Counter()
    for name in COLLECTIVES:
        setattr(dist, name, counted(called, name, getattr(dist, name)))
    model = shard(tiny("bidir").requires_grad_(True), "cpu")
    x, text = (
        torch.randn(1, *tiny_training.SHAPE),
        model.read_text(tiny_training.ENCODER.encode(tiny_training.PROMPTS[:1])),
    )
    called.clear()
    with watching(CPU) as watch:
        model(x, torch.tensor([500.0]), text).sum().backward()
        _, seconds = watch.lap()
    results(folder, "sharded").write_text(json.dumps({"called": called, "seconds": seconds}))


def counted(called: Counter[str], name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        called[name] += 1
        return own(*given, **named)

    return call


def reduce_all(folder) -> None:
    with watching(CPU) as watch:
        for _ in range(3):
            dist.all_reduce(torch.ones(1_000_000))
        _, seconds = watch.lap()
    assert seconds[COMMUNICATION] > seconds[OTHER]
    with Telemetry.of(StepCost(10, lambda index: 1.0, CPU), folder) as statistics:
        statistics.add(0)
        statistics.report("toy", 3)
    distributed.barrier()


def test_collectives_are_communication_and_one_process_reports(tmp_path):
    run_on(2, reduce_all, tmp_path)
    figures = json.loads((tmp_path / FILE).read_text())
    assert figures["world_size"] == 2


def test_figures_of_a_run(tmp_path, capsys, filmstill_log: pytest.LogCaptureFixture, clock: Clock):
    with Telemetry.of(StepCost(300, lambda index: 7.0, CPU), tmp_path) as statistics:
        for index in range(2):
            with part("critic"):
                clock.passes(0.02)
            statistics.add(index)
        statistics.report("distill", 100)
        assert capsys.readouterr().err == "" and not filmstill_log.messages  # a local run has its progress bar
        statistics.report("distill", 0)
    figures = json.loads((tmp_path / FILE).read_text())
    assert figures["seconds_per_step"] == pytest.approx(0.02)
    assert figures["tokens_per_second"] == pytest.approx(300 / figures["seconds_per_step"])
    assert figures["model_flop_utilisation"] is None  # a CPU's speed is not in the table
    assert 0.05 < figures["peak_gib"] < 64
    (line,) = filmstill_log.messages
    assert line.startswith("distill: ") and "(critic " in line and "tokens/s" in line
    assert "MFU 41.0%" in summary({**figures, "model_flop_utilisation": 0.41})
    assert figures["ends"] is None and "ends 2031" in summary({**figures, "ends": "2031-01-01 12:00"})


def distil_without_telemetry(folder: Path) -> None:
    loop.Telemetry = NoTelemetry
    distil(Cut(folder / "without"))


def distil_with_telemetry(folder: Path) -> None:
    distil(Cut(folder / "with"))


def test_two_ranks_train_the_same_weights_without_telemetry(tmp_path: Path):
    """The stopwatch wraps the collectives by which ranks exchange gradients: what they return must not change."""
    run_on(2, distil_with_telemetry, tmp_path)
    run_on(2, distil_without_telemetry, tmp_path)
    assert (tmp_path / "with/telemetry.json").exists() and not (tmp_path / "without/telemetry.json").exists()
    with_telemetry, without = (ended(tmp_path / name) for name in ("with", "without"))
    assert with_telemetry[0] == without[0]
    assert all(torch.equal(tensor, without[1][name]) for name, tensor in with_telemetry[1].items())
