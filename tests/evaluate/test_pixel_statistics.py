"""Pixel statistics: what each responds to, windows of a long stream, and failed clips."""

import pandas as pd
import pytest
import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.evaluate.pixel_statistics import STATISTICS, drop_failed, statistics, windows
from filmstill.evaluate.requests import LONG_ARM
from filmstill.params.evaluate import Evaluate


def clip(shift: int = 0, grain: float = 0.0) -> Tensor:
    """A square that moves by `shift` pixels per frame over grey, with grain: [9, 3, 48, 64]."""
    video = torch.full((9, 3, 48, 64), 0.3)
    for frame in range(9):
        video[frame, :, 16:32, 4 + shift * frame : 20 + shift * frame] = 0.8
    return (video + grain * torch.randn(video.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def test_each_statistic_responds_to_its_own_fault():
    still, moving, grainy = statistics(clip()), statistics(clip(shift=4)), statistics(clip(grain=0.1))
    assert set(still) == set(STATISTICS)
    assert still["temporal_flickering"] == 1 and still["motion"] == 0
    grain = [1 - grainy["temporal_flickering"], grainy["motion"]]  # change of pixels, and of 8 x 8 pixels
    assert grain[1] < grain[0] / 5 and moving["motion"] > 2 * grain[1]
    assert grainy["temporal_flickering"] < moving["temporal_flickering"] < 1
    assert grainy["sharpness"] > 1.5 * still["sharpness"]
    blurred = torch.nn.functional.avg_pool2d(clip(), 5, stride=1, padding=2, count_include_pad=False)
    assert statistics(blurred)["sharpness"] < 0.6 * still["sharpness"]
    assert statistics(0.5 * clip())["contrast"] == pytest.approx(still["contrast"] / 2, rel=1e-5)


def test_a_long_stream_is_cut_into_windows_without_a_short_last_one():
    params = Evaluate(window_frames=3)
    video = torch.zeros(4 * 3 * 2 + 5, 3, 8, 8)
    assert [len(piece) for piece in windows(video, LONG_ARM, params)] == [12, 12]
    assert [len(piece) for piece in windows(video, "student", params)] == [29]


def test_failed_clips_are_dropped_from_every_arm():
    clips = [(arm, prompt) for arm in ("student", "teacher", LONG_ARM) for prompt in "ab"]
    table = pd.DataFrame({"arm": [arm for arm, _ in clips], "prompt_id": [prompt for _, prompt in clips], "seed": 0})
    failed = table.iloc[[0, 5]]  # the student's clip of a, the long stream of b
    left = drop_failed(table, failed)[["arm", "prompt_id"]].values.tolist()
    assert left == [["student", "b"], ["teacher", "b"], [LONG_ARM, "a"]]
    assert len(drop_failed(table, failed.head(0))) == 6
    with pytest.raises(FilmstillError, match="no clip is finite in every arm"):
        drop_failed(table, table.iloc[[0, 3]])
    with pytest.raises(FilmstillError, match="no long stream is finite"):
        drop_failed(table, table.iloc[4:])
