"""Drift of long streams: what is lost, when, and at which offset of the windows."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.evaluate.drift import SCORES, score_windows, stream_metrics, window_means, window_starts
from filmstill.evaluate.judged_clips import DecodedClips
from filmstill.params.evaluate import Evaluate
from filmstill.params.student import Student
from filmstill.params.world import World
from filmstill.worlds.grammar import MOTIONS, SYMBOLS, Attributes
from filmstill.worlds.symbols import render
from symbols_samples import CODEC, rows_of

WORLD, BLOCKS = World(), Student()  # blocks of 3
ASKED = [Attributes(symbol, "red", MOTIONS[i % 4]) for i, symbol in enumerate(SYMBOLS[:8])]
OTHERS = [replace(each, symbol=SYMBOLS[8 + i % 4]) for i, each in enumerate(ASKED)]
ROWS = rows_of("student_long", ASKED, ["main"] * len(ASKED), [0] * len(ASKED))
FRAMES = 48  # windows of 12: at offset 0 end at 12, 24, 36, 48; at offset 3 at 15, 27, 39


def streams(video: Tensor, failed: int = 0) -> DecodedClips:
    """Streams of ASKED, the first `failed` of them not finite."""
    lost = torch.arange(len(ASKED)) < failed
    return DecodedClips(ROWS, CODEC.decode(CODEC.encode(video)), ASKED, lost.numpy())


def shares(video: Tensor, failed: int = 0) -> dict[tuple[int, int], dict[str, float]]:
    """Mean scores by offset and end of the window."""
    means = window_means(score_windows(streams(video, failed), WORLD, 12, BLOCKS), Evaluate(resamples=100), 0)
    return {(row["offset"], row["frame"]): row for row in means.to_dict("records")}


def test_windows_begin_at_every_block():
    assert window_starts(24, 12, BLOCKS) == [0, 3, 6, 9, 12]
    assert len(window_starts(240, 12, BLOCKS)) == 20 + 3 * 19
    assert window_starts(14, 5, BLOCKS) == [0, 3, 5, 8]  # a window need not be a whole number of blocks
    assert window_starts(12, 12, BLOCKS) == [0]
    first_alone = Student(independent_first=True)  # blocks 1, 3, 3, …
    assert window_starts(24, 12, first_alone) == [0, 1, 4, 7, 10, 12]


@pytest.mark.parametrize("first_frame", [0, 5])
def test_a_real_stream_is_right_and_in_phase_everywhere_wherever_it_begins(first_frame: int):
    found = shares(render(ASKED, FRAMES, WORLD, first_frame))
    assert list(found)[:6] == [(0, 12), (3, 15), (6, 18), (9, 21), (0, 24), (3, 27)] and len(found) == 13
    for row in found.values():
        assert all(row[name] == 1 for name in SCORES if name != "fidelity") and row["fidelity"] > 25


def test_a_stream_that_shows_another_symbol_from_its_middle_is_seen():
    changed = torch.cat([render(ASKED, 24, WORLD), render(OTHERS, 24, WORLD, 24)], dim=1)
    for (_, end), row in shares(changed).items():
        right = float(end <= 24)
        assert (row["symbol"], row["all_attributes"], row["phase_kept"]) == (right, right, right), end
        assert row["colour"] == row["motion"] == 1
        assert (row["fidelity"] > 25) == (end <= 24)


def test_a_stream_that_jumps_in_phase_keeps_what_is_right_and_loses_its_phase():
    jumped = torch.cat([render(ASKED, 24, WORLD), render(ASKED, 24, WORLD, 24 + 3)], dim=1)
    for (offset, end), row in shares(jumped).items():
        across = end - 12 < 24 < end
        assert offset == end % 12
        assert row["symbol"] == row["colour"] == 1
        assert row["motion"] == row["all_attributes"] == float(not across), end
        assert row["phase_kept"] == float(end <= 24), end


def test_a_broken_beginning_does_not_decide_the_phase():
    video = render(ASKED, FRAMES, WORLD)
    video[:, :5] = 0
    for (_, end), row in shares(video).items():
        assert row["all_attributes"] == row["phase_kept"] == float(end >= 5 + 12), end


def test_half_of_the_streams_lost_is_a_half_with_an_interval():
    video = render(ASKED, FRAMES, WORLD)
    video[:4, 36:] = 0
    last = shares(video)[(0, 48)]
    assert last["all_attributes"] == last["phase_kept"] == 0.5
    assert 0 < last["all_attributes_low"] < 0.5 < last["all_attributes_high"] < 1


def test_a_stream_that_is_not_finite_scores_0_in_every_window():
    video = render(ASKED, FRAMES, WORLD)
    clean = shares(video)
    video[:2] = 0
    for key, row in shares(video, failed=2).items():
        assert all(row[name] == pytest.approx(0.75, abs=1e-9) for name in SCORES if name != "fidelity")
        assert row["fidelity"] < 0.8 * clean[key]["fidelity"]
    assert shares(video, failed=8)[(0, 12)]["fidelity"] == 0


def test_a_window_longer_than_the_stream_is_refused():
    with pytest.raises(
        FilmstillError, match=r"evaluate.window_frames: is 49, allowed: at most samples.long_frames \(48\)"
    ):
        score_windows(streams(render(ASKED, FRAMES, WORLD)), WORLD, 49, 3)


def test_the_stream_in_numbers_is_the_worst_and_the_mean_of_its_windows():
    def row(prompt: str, offset: int, frame: int, right: float, kept: float, fidelity: float) -> dict[str, object]:
        attributes = dict.fromkeys(("all_attributes", "symbol", "colour", "motion"), right)
        return {
            "prompt_id": prompt,
            "offset": offset,
            "frame": frame,
            **attributes,
            "fidelity": fidelity,
            "phase_kept": kept,
        }

    windows = pd.DataFrame(
        [
            *(row(prompt, 0, 12, 1, 1, 30) for prompt in "ab"),
            *(row(prompt, 0, 24, prompt == "a", prompt == "a", 28) for prompt in "ab"),
            *(row(prompt, 3, 15, 1, 0, 26) for prompt in "ab"),
        ]
    )
    params = Evaluate(resamples=100)
    metrics = stream_metrics(windows, window_means(windows, params, 0), params, 0)
    assert metrics == {
        "prompts": 2,
        "frames": 24,
        "worst_window": 0.5,
        "worst_window_interval": [0, 1],
        "worst_window_end": 24,
        "mean_window": pytest.approx(5 / 6),
        "mean_window_interval": pytest.approx([2 / 3, 1]),
        "phase_kept": 0,
        "last_fidelity": 26,
        "by_offset": {
            "0": {"worst_window": 0.5, "mean_window": 0.75, "phase_kept": 0.5, "last_fidelity": 28},
            "3": {"worst_window": 1, "mean_window": 1, "phase_kept": 0, "last_fidelity": 26},
        },
    }
