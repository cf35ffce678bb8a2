"""Aggregation by hand-computed numbers, intervals by their properties, pairing by prompt and seed."""

import numpy as np
import pandas as pd
import pytest

from filmstill.errors import FilmstillError
from filmstill.evaluate.dimensions import NAMES, QUALITY
from filmstill.evaluate.scores import aggregate, bootstrap_interval, normalise, paired_difference


def test_normalisation_is_linear_and_not_clipped():
    raw = pd.DataFrame({"colour": [0.2, 0.6, 1.2]})
    assert normalise(raw, {"colour": 0.2}, {"colour": 1.0})["colour"].tolist() == pytest.approx([0, 0.5, 1.25])


def test_a_dimension_that_tells_nothing_is_refused():
    with pytest.raises(FilmstillError, match=r"colour: ceiling 0\.5 is not above floor 0\.5"):
        normalise(pd.DataFrame({"colour": [1.0]}), {"colour": 0.5}, {"colour": 0.5})


def test_total_weighs_quality_four_to_one_and_dynamic_degree_half():
    row = dict.fromkeys(NAMES, 1.0) | {"dynamic_degree": 0.0, "motion": 0.0}
    total = aggregate(pd.DataFrame([row])).iloc[0]
    assert total["quality"] == pytest.approx(5 / 5.5)
    assert total["semantic"] == pytest.approx(0.75)
    assert total["total"] == pytest.approx((4 * 5 / 5.5 + 0.75) / 5)
    assert sum(QUALITY.values()) == 5.5


def test_the_interval_covers_the_mean_19_times_in_20():
    dice = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = pd.Series(dice.normal(size=60))
        low, high = bootstrap_interval(values, pd.Series(range(60)), 400, trial)
        covered += low <= 0 <= high
    assert 180 <= covered <= 199


def test_copies_within_a_prompt_narrow_nothing():
    """Clustering: four copies of each clip are no more evidence than one."""
    values = pd.Series(np.random.default_rng(1).normal(size=40))
    once = bootstrap_interval(values, pd.Series(range(40)), 500, 0)
    four = bootstrap_interval(pd.Series(np.repeat(values.to_numpy(), 4)), pd.Series(np.repeat(range(40), 4)), 500, 0)
    assert four == pytest.approx(once)


def test_pairs_are_of_the_same_prompt_and_seed():
    ours = pd.DataFrame({"prompt_id": ["a", "a", "b"], "seed": [0, 1, 0], "x": [1.0, 0.0, 1.0]})
    theirs = pd.DataFrame({"prompt_id": ["b", "a", "a"], "seed": [0, 1, 0], "x": [0.0, 1.0, 1.0]})
    assert paired_difference(ours, theirs, "x")["difference"].tolist() == [0.0, -1.0, 1.0]
