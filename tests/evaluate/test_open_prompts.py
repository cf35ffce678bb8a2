"""Entropies of what clips show where their prompt leaves an attribute open, by sets of values counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from filmstill.evaluate.open_prompts import entropies, entropy_metrics, normalised_entropy
from filmstill.params.evaluate import Evaluate
from filmstill.worlds.grammar import COLOURS, MOTIONS, SYMBOLS

HALF = -(6 / 12 * math.log(6 / 12) + 6 / 12 * math.log(1 / 12))  # six clips of one value, six of six others
PARAMS = Evaluate(resamples=200)


@pytest.mark.parametrize(
    ("shown", "values", "entropy"),
    [
        (["star"] * 12, 12, 0.0),  # collapsed
        (list(SYMBOLS), 12, 1.0),  # uniform
        (list(COLOURS) * 2, 6, 1.0),
        (["star"] * 6 + list(SYMBOLS[1:7]), 12, HALF / math.log(12)),  # half collapsed
        (["red"] * 6 + ["blue"] * 6, 6, math.log(2) / math.log(6)),
        ([None] * 12, 6, 0.0),  # nothing is shown at all
        (["red"] * 6 + [None] * 6, 6, 0.0),  # what is broken is no variety
        ([*COLOURS, *[None] * 6], 6, 0.5),  # uniform where a colour is shown, in half of the clips
    ],
)
def test_entropy_is_that_of_the_values_shown(shown: list[str | None], values: int, entropy: float):
    assert normalised_entropy(shown, values) == pytest.approx(entropy, abs=1e-12)


def clips(shown: dict[str, dict[str, list[str | None]]], left_open: dict[str, str]) -> pd.DataFrame:
    """Rows of the clips of each arm and prompt."""
    rows = [
        {"arm": arm, "prompt_id": prompt, "left_open": left_open[prompt], "shown": value}
        for arm, prompts in shown.items()
        for prompt, values in prompts.items()
        for value in values
    ]
    return pd.DataFrame(rows)


OPEN = {"a": "colour", "b": "motion"}
UNIFORM: dict[str, list[str | None]] = {"a": [*COLOURS, *COLOURS], "b": [*MOTIONS] * 3}


def test_a_collapsed_student_has_ratio_0_and_one_like_the_teacher_ratio_1():
    collapsed: dict[str, list[str | None]] = {"a": ["red"] * 12, "b": ["bobs"] * 12}
    halves: dict[str, list[str | None]] = {"a": ["red"] * 12, "b": [*MOTIONS] * 3}
    for of_student, ratio, interval in ((collapsed, 0, [0, 0]), (UNIFORM, 1, [1, 1]), (halves, 0.5, [0, 1])):
        arms = {"real": UNIFORM, "teacher": UNIFORM, "student": of_student}
        metrics = entropy_metrics(clips(arms, OPEN), PARAMS, 0)
        for arm in ("teacher", "real"):
            against = metrics[f"student_vs_{arm}"]
            assert against["entropy_ratio"] == pytest.approx(ratio)
            assert against["entropy_ratio_interval"] == pytest.approx(interval)
        assert metrics["student"]["entropy"] == pytest.approx(ratio)
    assert metrics["student"]["entropy_of"] == pytest.approx({"colour": 0, "motion": 1})
    assert metrics["student"]["entropy_interval"] == pytest.approx([0, 1])
    assert metrics["teacher"]["entropy_of"] == pytest.approx({"colour": 1, "motion": 1})


def test_no_ratio_is_made_up_where_the_teacher_shows_nothing():
    nothing: dict[str, list[str | None]] = {"a": [None] * 12, "b": [None] * 12}
    metrics = entropy_metrics(clips({"real": UNIFORM, "teacher": nothing, "student": nothing}, OPEN), PARAMS, 0)
    assert metrics["student_vs_teacher"] == {"entropy_ratio": None, "entropy_ratio_interval": None}
    assert metrics["student_vs_real"] == {"entropy_ratio": 0.0, "entropy_ratio_interval": [0.0, 0.0]}
    assert metrics["teacher"]["entropy"] == 0


def test_without_open_prompts_there_are_no_entropies():
    none = clips({"real": UNIFORM}, OPEN).head(0)
    assert entropies(none).empty and entropy_metrics(none, PARAMS, 0) == {}


def test_uniform_draws_of_as_many_seeds_are_the_reference():
    """The plug-in entropy of 12 uniform draws is below 1: hence the ratio to real clips."""
    dice = np.random.default_rng(0)
    draws = [[SYMBOLS[i] for i in dice.integers(12, size=12)] for _ in range(2000)]
    assert np.mean([normalised_entropy(draw, 12) for draw in draws]) == pytest.approx(0.78, abs=0.01)
