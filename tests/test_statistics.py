"""What a run says of its cost."""

import json
import time

import pytest
import torch
import torch.distributed as dist

from filmstill.distill.statistics import FILE, Statistics, Worth, in_words
from filmstill.runtime import distributed
from filmstill.runtime.stopwatch import COLLECTIVES, COMMUNICATION, OTHER, Stopwatch, part, watching
from processes import run_on

CPU = torch.device("cpu")


def test_parts_inside_parts_add_up_to_the_whole():
    watch, began = Stopwatch(CPU), time.perf_counter()
    with watch.part("rollout"):
        time.sleep(0.02)
        with watch.part("data"):
            time.sleep(0.03)
        time.sleep(0.01)
    time.sleep(0.01)
    (whole, seconds), clock = watch.lap(), time.perf_counter() - began
    assert sum(seconds.values()) == pytest.approx(whole) == pytest.approx(clock, abs=2e-3)
    assert seconds["data"] == pytest.approx(0.03, abs=0.01)
    assert seconds["rollout"] == pytest.approx(0.03, abs=0.01)
    assert seconds[OTHER] >= 0.01
    assert watch.lap()[0] < 0.01  # a lap begins anew


def test_a_part_that_fails_is_over():
    with watching(CPU) as watch:
        with pytest.raises(ZeroDivisionError), part("rollout"):
            raise ZeroDivisionError
        watch.lap()
        time.sleep(0.01)
        assert set(watch.lap()[1]) == {OTHER}


def test_nothing_is_timed_where_nobody_watches():
    library = [getattr(dist, name) for name in COLLECTIVES]
    with part("rollout"):
        pass
    with watching(CPU):
        assert all(getattr(dist, name) is not own for name, own in zip(COLLECTIVES, library, strict=True))
    assert [getattr(dist, name) for name in COLLECTIVES] == library


def reduce_all(folder) -> None:
    with watching(CPU) as watch:
        for _ in range(3):
            dist.all_reduce(torch.ones(1_000_000))
        _, seconds = watch.lap()
    assert seconds[COMMUNICATION] > seconds[OTHER]
    with Statistics.of(Worth(10, lambda index: 1.0, CPU), folder) as statistics:
        statistics.add(0)
        statistics.report("toy", 3)
    distributed.barrier()


def test_collectives_are_communication_and_one_process_reports(tmp_path):
    run_on(2, reduce_all, tmp_path)
    figures = json.loads((tmp_path / FILE).read_text())
    assert figures["processes"] == 2


def test_figures_of_a_run(tmp_path, capsys):
    with Statistics.of(Worth(300, lambda index: 7.0, CPU), tmp_path) as statistics:
        for index in range(2):
            with part("critic"):
                time.sleep(0.02)
            statistics.add(index)
        statistics.report("distill", 100)
        assert capsys.readouterr().err == ""  # a local run has its bar
        statistics.report("distill", 0)
    figures = json.loads((tmp_path / FILE).read_text())
    assert figures["seconds_a_step"] == pytest.approx(0.02, rel=0.3)
    assert figures["tokens_a_second"] == pytest.approx(300 / figures["seconds_a_step"])
    assert figures["model_flop_utilisation"] is None  # a CPU's speed is not in the table
    assert 0.05 < figures["peak_gib"] < 64
    said = capsys.readouterr().err
    assert said.startswith("distill: ") and "(critic " in said and "tokens/s" in said
    assert "MFU 41.0%" in in_words({**figures, "model_flop_utilisation": 0.41})
    assert figures["ends"] is None and "ends 2031" in in_words({**figures, "ends": "2031-01-01 12:00"})
