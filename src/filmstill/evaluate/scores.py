"""From raw dimension scores to digits-bench: normalisation, aggregation, intervals.

VBench's aggregation: n = (x - floor) / (ceiling - floor), not clipped; quality and semantic are (weighted) means of
their dimensions; total = (4*quality + semantic) / 5.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from filmstill.errors import FilmstillError
from filmstill.evaluate.dimensions import QUALITY, SEMANTIC

AGGREGATES = ("quality", "semantic", "total")


def normalise(raw: pd.DataFrame, floor: Mapping[str, float], ceiling: Mapping[str, float]) -> pd.DataFrame:
    """n of every dimension column; a dimension whose floor is its ceiling tells nothing and is refused."""
    for name in raw.columns:
        if not ceiling[name] > floor[name]:
            raise FilmstillError(
                f"{name}: ceiling {ceiling[name]:g} is not above floor {floor[name]:g}: real clips of this world "
                "score no higher than its faults; raise world.amplitude or lower world.period"
            )
    return pd.DataFrame({name: (raw[name] - floor[name]) / (ceiling[name] - floor[name]) for name in raw.columns})


def aggregate(normalised: pd.DataFrame) -> pd.DataFrame:
    """Columns quality, semantic and total, a row a clip. Means of linear functions: order does not matter."""
    weights = pd.Series(QUALITY)
    quality = (normalised[list(QUALITY)] * weights).sum(axis=1) / weights.sum()
    semantic = normalised[list(SEMANTIC)].mean(axis=1)
    return pd.DataFrame({"quality": quality, "semantic": semantic, "total": (4 * quality + semantic) / 5})


def bootstrap_interval(values: pd.Series, clusters: pd.Series, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, resampling whole clusters (prompts) with replacement."""
    grouped = values.groupby(clusters.to_numpy(), sort=True)
    sums, counts = grouped.sum().to_numpy(), grouped.count().to_numpy()
    picks = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def paired_differences(
    ours: pd.DataFrame, theirs: pd.DataFrame, columns: Sequence[str], resamples: int, seed: int
) -> dict[str, float | list[float]]:
    """`<column>_difference`, ours less theirs on the same prompt and seed, and its `<column>_interval`."""
    compared: dict[str, float | list[float]] = {}
    for column in columns:
        pairs = paired_difference(ours, theirs, column)
        compared[f"{column}_difference"] = float(pairs["difference"].mean())
        interval = bootstrap_interval(pairs["difference"], pairs["prompt_id"], resamples, seed)
        compared[f"{column}_interval"] = list(interval)
    return compared


def paired_difference(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Ours less theirs on the same prompt and seed: columns prompt_id, difference."""
    both = ours.merge(theirs, on=["prompt_id", "seed"], suffixes=("", "_theirs"), validate="one_to_one")
    return pd.DataFrame({"prompt_id": both["prompt_id"], "difference": both[column] - both[f"{column}_theirs"]})
