"""`make bench-gpu` needs a GPU; its rows run here in miniature."""

import math

from gpu_benchmark import TINY, measure


def test_every_row_is_measured_beside_its_floor():
    rate, rows = measure(TINY)
    assert rate > 1e9
    assert {what.split(",")[0].split()[0] for what, *_ in rows} == {"small", "large", "stream", "critic", "generator"}
    for what, seconds, operations, _remark in rows:
        assert math.isfinite(seconds) and seconds > operations / rate, what
