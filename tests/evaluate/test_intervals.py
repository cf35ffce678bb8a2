"""Bootstrap intervals by their properties, and pairing by prompt and seed."""

import numpy as np
import pandas as pd
import pytest

from filmstill.evaluate.intervals import bootstrap_interval, paired_difference, ratio_of_means


def test_the_interval_covers_the_mean_19_times_in_20():
    dice = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = pd.Series(dice.normal(size=60))
        low, high = bootstrap_interval(values, pd.Series(range(60)), 400, trial)
        covered += low <= 0 <= high
    assert 180 <= covered <= 199


def test_copies_within_a_prompt_narrow_nothing():
    """Clips are clustered by prompt: four copies of each are no more evidence than one."""
    values = pd.Series(np.random.default_rng(1).normal(size=40))
    once = bootstrap_interval(values, pd.Series(range(40)), 500, 0)
    four = bootstrap_interval(pd.Series(np.repeat(values.to_numpy(), 4)), pd.Series(np.repeat(range(40), 4)), 500, 0)
    assert four == pytest.approx(once)


def test_pairs_are_of_the_same_prompt_and_seed():
    first = pd.DataFrame({"prompt_id": ["a", "a", "b"], "seed": [0, 1, 0], "x": [1.0, 0.0, 1.0]})
    second = pd.DataFrame({"prompt_id": ["b", "a", "a"], "seed": [0, 1, 0], "x": [0.0, 1.0, 1.0]})
    assert paired_difference(first, second, "x")["difference"].tolist() == [0.0, -1.0, 1.0]


def test_a_ratio_of_means_is_paired_by_prompt():
    """Prompts that are hard for both arms widen no interval."""
    second = pd.Series(np.random.default_rng(2).uniform(0.2, 1, size=30), index=[f"p{i}" for i in range(30)])
    ratio, interval = ratio_of_means(0.5 * second.iloc[::-1], second, 400, 0)
    assert ratio == pytest.approx(0.5) and interval == pytest.approx([0.5, 0.5])


def test_the_interval_of_a_ratio_covers_it_19_times_in_20():
    dice = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        first, second = (pd.Series(dice.normal(mean, 0.3, size=60)) for mean in (0.7, 1.0))
        _, interval = ratio_of_means(first, second, 400, trial)
        covered += interval[0] <= 0.7 <= interval[1]
    assert 180 <= covered <= 199


def test_a_ratio_to_nothing_is_none_and_resamples_of_nothing_are_left_out():
    assert ratio_of_means(pd.Series([1.0, 0.0]), pd.Series([0.0, 0.0]), 100, 0) == (None, None)
    ratio, interval = ratio_of_means(
        pd.Series([1.0, 0.0]), pd.Series([1.0, 0.0]), 100, 0
    )  # a quarter has no second one
    assert ratio == 1 and interval == [1, 1]
