"""Entropies of the colours that clips show where their prompt leaves the colour open, by sets counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from filmstill.evaluate.open_prompts import entropy_metrics, normalised_entropy
from filmstill.params.evaluate import Evaluate
from filmstill.worlds.grammar import COLOURS

Shown = list[str | None]
COLLAPSED: Shown = ["red"] * 12
UNIFORM: Shown = [*COLOURS, *COLOURS]
HALF_COLLAPSED: Shown = ["red"] * 7 + list(COLOURS[1:])  # six clips of one colour, six of all six
OF_HALF = (7 / 12 * math.log(12 / 7) + 5 / 12 * math.log(12)) / math.log(6)
NOTHING: Shown = [None] * 12
PARAMS = Evaluate(resamples=200)


@pytest.mark.parametrize(
    ("shown", "entropy"),
    [
        (COLLAPSED, 0.0),
        (UNIFORM, 1.0),
        (HALF_COLLAPSED, OF_HALF),
        (["red"] * 6 + ["blue"] * 6, math.log(2) / math.log(6)),
        (NOTHING, 0.0),
        (["red"] * 6 + [None] * 6, 0.0),  # what is broken is no variety
        ([*COLOURS, *[None] * 6], 0.5),  # uniform where a colour is shown, in half of the clips
    ],
)
def test_entropy_is_that_of_the_colours_shown(shown: Shown, entropy: float):
    assert normalised_entropy(shown) == pytest.approx(entropy, abs=1e-12)
    assert normalised_entropy(shown[::-1]) == pytest.approx(entropy, abs=1e-12)


def clips(shown: dict[str, list[Shown]]) -> pd.DataFrame:
    """Rows of the clips of each arm and prompt."""
    rows = [
        {"arm": arm, "prompt_id": f"p{number}", "shown_colour": colour}
        for arm, prompts in shown.items()
        for number, colours in enumerate(prompts)
        for colour in colours
    ]
    return pd.DataFrame(rows, columns=["arm", "prompt_id", "shown_colour"])


@pytest.mark.parametrize(
    ("student", "ratio", "interval"),
    [
        ([COLLAPSED, COLLAPSED], 0, [0, 0]),
        ([UNIFORM, UNIFORM], 1, [1, 1]),
        ([COLLAPSED, UNIFORM], 0.5, [0, 1]),
        ([HALF_COLLAPSED, HALF_COLLAPSED], OF_HALF, [OF_HALF, OF_HALF]),
        ([NOTHING, NOTHING], 0, [0, 0]),
    ],
)
def test_a_collapsed_student_has_ratio_0_and_one_like_the_teacher_1(
    student: list[Shown], ratio: float, interval: list[float]
):
    arms = {"real": [UNIFORM, UNIFORM], "teacher": [UNIFORM, UNIFORM], "student": student}
    metrics = entropy_metrics(clips(arms), PARAMS, 0)
    for arm in ("teacher", "real"):
        against = metrics[f"student_vs_{arm}"]
        assert against["entropy_ratio"] == pytest.approx(ratio)
        assert against["entropy_ratio_interval"] == pytest.approx(interval)
    assert metrics["student"]["entropy"] == pytest.approx(ratio)
    assert metrics["student"]["entropy_interval"] == pytest.approx(interval)
    assert metrics["teacher"]["entropy"] == pytest.approx(1)


def test_a_student_is_measured_against_what_its_teacher_knows():
    arms = {"real": [UNIFORM], "teacher": [HALF_COLLAPSED], "student": [HALF_COLLAPSED]}
    metrics = entropy_metrics(clips(arms), PARAMS, 0)
    assert metrics["student_vs_teacher"]["entropy_ratio"] == pytest.approx(1)
    assert metrics["student_vs_real"]["entropy_ratio"] == pytest.approx(OF_HALF)


def test_no_ratio_is_made_up_where_the_teacher_shows_nothing():
    arms = {"real": [UNIFORM, UNIFORM], "teacher": [NOTHING, NOTHING], "student": [NOTHING, NOTHING]}
    metrics = entropy_metrics(clips(arms), PARAMS, 0)
    assert metrics["student_vs_teacher"] == {"entropy_ratio": None, "entropy_ratio_interval": None}
    assert metrics["student_vs_real"] == {"entropy_ratio": 0.0, "entropy_ratio_interval": [0.0, 0.0]}
    assert metrics["teacher"]["entropy"] == 0


def test_without_open_prompts_there_are_no_entropies():
    assert entropy_metrics(clips({}), PARAMS, 0) == {}


def test_uniform_draws_of_as_many_seeds_are_the_reference():
    """The plug-in entropy of 12 uniform draws is below 1: hence the ratio to real clips."""
    dice = np.random.default_rng(0)
    draws = [[COLOURS[i] for i in dice.integers(6, size=12)] for _ in range(2000)]
    assert np.mean([normalised_entropy(list(draw)) for draw in draws]) == pytest.approx(0.864, abs=0.01)
