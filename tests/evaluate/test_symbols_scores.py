"""Normalisation and aggregation of symbols-bench, by numbers computed by hand."""

import pandas as pd
import pytest

from filmstill.errors import FilmstillError
from filmstill.evaluate.dimensions import NAMES, QUALITY
from filmstill.evaluate.symbols_scores import aggregate, normalise


def test_normalisation_is_linear_and_not_clipped():
    raw = pd.DataFrame({"colour": [0.2, 0.6, 1.2]})
    assert normalise(raw, {"colour": 0.2}, {"colour": 1.0})["colour"].tolist() == pytest.approx([0, 0.5, 1.25])


def test_a_dimension_with_its_ceiling_at_its_floor_is_refused():
    with pytest.raises(FilmstillError, match=r"colour: ceiling 0\.5 is not above floor 0\.5"):
        normalise(pd.DataFrame({"colour": [1.0]}), {"colour": 0.5}, {"colour": 0.5})


def test_total_weighs_quality_four_to_one_and_dynamic_degree_half():
    row = dict.fromkeys(NAMES, 1.0) | {"dynamic_degree": 0.0, "motion": 0.0}
    total = aggregate(pd.DataFrame([row])).iloc[0]
    assert total["quality"] == pytest.approx(6 / 6.5)
    assert total["semantic"] == pytest.approx(0.75)
    assert total["total"] == pytest.approx((4 * 6 / 6.5 + 0.75) / 5)
    assert sum(QUALITY.values()) == 6.5  # as in VBench
