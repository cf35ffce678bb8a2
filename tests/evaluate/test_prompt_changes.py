"""Streams whose prompt changes: drawn ones that follow at once, late or never, and what was before."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from filmstill.evaluate.judged_clips import DecodedClips
from filmstill.evaluate.metrics import Metrics
from filmstill.evaluate.prompt_changes import (
    BEGINS,
    RIGHT,
    blocks_until_right,
    change_means,
    change_metrics,
    score_changes,
)
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import World
from filmstill.worlds.grammar import MOTIONS, SYMBOLS, Attributes
from filmstill.worlds.symbols import render
from judged import decoded, others
from symbols_samples import rows_of

WORLD, PARAMS = World(), Evaluate(resamples=100)
CHANGE, FRAMES = 24, 60  # windows of 12 begin at 0, 3, …, 12 and at 24, 27, …, 48
ASKED = [Attributes(symbol, "red", MOTIONS[i % 4]) for i, symbol in enumerate(SYMBOLS[:4])]
FOLLOWING = others(ASKED)
NEVER = FRAMES


def stream(index: int, late: int, change: int = CHANGE) -> Tensor:
    """Stream [FRAMES, 3, 32, 32] that goes on with the old prompt for `late` frames after the change."""
    old, new = render([ASKED[index]], FRAMES, WORLD)[0], render([FOLLOWING[index]], FRAMES, WORLD)[0]
    return torch.cat([old[: change + late], new[change + late :]])[:FRAMES]


def scored(videos: list[Tensor], failed: tuple[int, ...] = (), change: int = CHANGE) -> pd.DataFrame:
    count = len(videos)
    rows = rows_of("student_changed", ASKED[:count], ["main"] * count, [0] * count)
    streams = DecodedClips(rows, decoded(torch.stack(videos)), ASKED[:count], np.isin(range(count), failed))
    return score_changes(streams, FOLLOWING[:count], change, WORLD, 12, 3)


def found(windows: pd.DataFrame) -> tuple[list[int | None], Metrics]:
    """Blocks until each stream is right, and the metrics."""
    until = blocks_until_right(windows, 3)
    return list(until.values()), change_metrics(windows, change_means(windows, PARAMS, 0), until, 3, PARAMS, 0)


def test_windows_begin_at_every_block_and_none_lies_across_the_change():
    windows = scored([stream(0, 0)])
    assert windows[BEGINS].tolist() == [-24, -21, -18, -15, -12, *range(0, 25, 3)]
    assert (windows[RIGHT] == 1).all()
    first_alone = scored([stream(0, 0, change=25)], change=25)  # blocks 1, 3, 3, …
    assert first_alone[BEGINS].tolist() == [-24, -21, -18, -15, -12, *range(0, 22, 3)]
    assert (first_alone[RIGHT] == 1).all()


def test_streams_that_follow_at_once_late_and_never():
    until, metrics = found(scored([stream(0, 0), stream(1, 6), stream(2, 10), stream(3, NEVER)]))
    assert until == [0, 2, 4, None], "a window that begins one frame before the new prompt is not right"
    assert metrics["before"] == 1 and metrics["before_interval"] == [1, 1]
    assert metrics["within_3_blocks"] == metrics["stay_right"] == 0.5 and metrics["median_blocks"] == 2
    low, high = metrics["within_3_blocks_interval"]
    assert 0 <= low < 0.5 < high <= 1
    # Windows that begin 9, 12, …, 24 frames after the change: the third stream is wrong in the first of the six.
    assert metrics["later_worst"] == 0.5 and metrics["later_mean"] == pytest.approx((0.5 + 5 * 0.75) / 6)


def test_a_stream_that_falls_back_is_right_soon_but_does_not_stay_so():
    back = stream(0, 0)
    back[45:] = stream(0, NEVER)[45:]
    until, metrics = found(scored([back, stream(1, 0)]))
    assert until == [0, 0] and metrics["within_3_blocks"] == 1 and metrics["before"] == 1
    assert metrics["stay_right"] == 0.5 and metrics["stay_right_interval"] == [0, 1]
    assert metrics["later_worst"] == 0.5 and metrics["later_mean"] == pytest.approx((1 + 5 * 0.5) / 6)


def test_most_streams_never_right_have_no_median():
    until, metrics = found(scored([stream(0, 0), stream(1, NEVER), stream(2, NEVER)]))
    assert until == [0, None, None] and metrics["median_blocks"] is None


def test_what_was_before_is_judged_under_the_first_prompt():
    early = stream(0, -6)
    _, metrics = found(scored([early, stream(1, 0)]))
    assert metrics["before"] == 0.8, "two of five windows reach over frame 18, where it has changed already"
    assert metrics["within_3_blocks"] == 1


def test_a_failed_stream_is_never_right():
    until, metrics = found(scored([stream(0, 0), stream(1, 0)], failed=(1,)))
    assert until == [0, None]
    assert metrics["before"] == metrics["within_3_blocks"] == metrics["later_mean"] == metrics["later_worst"] == 0.5


def test_a_change_before_the_first_window_has_nothing_before():
    _, metrics = found(scored([stream(0, 0, change=9)], change=9))
    assert "before" not in metrics and metrics["within_3_blocks"] == 1


def test_means_have_a_row_per_window_with_its_interval():
    means = change_means(scored([stream(0, 0), stream(1, NEVER)]), PARAMS, 0)
    assert means[BEGINS].tolist() == [-24, -21, -18, -15, -12, *range(0, 25, 3)]
    after = means[means[BEGINS] >= 0]
    assert set(after[RIGHT]) == {0.5} and set(after[f"{RIGHT}_low"]) == {0} and set(after[f"{RIGHT}_high"]) == {1}
