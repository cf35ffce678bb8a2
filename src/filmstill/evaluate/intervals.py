"""Bootstrap intervals over prompts; ratios and differences of two arms, paired by prompt."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def bootstrap_interval(values: pd.Series, clusters: pd.Series, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, resampling whole clusters (prompts) with replacement."""
    grouped = values.groupby(clusters.to_numpy(), sort=True)
    sums, counts = grouped.sum().to_numpy(), grouped.count().to_numpy()
    picks = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def mean_with_interval(
    name: str, values: pd.Series, clusters: pd.Series, resamples: int, seed: int
) -> dict[str, float | list[float]]:
    """The mean of `values` as `name`, and its `bootstrap_interval` as `<name>_interval`."""
    interval = bootstrap_interval(values, clusters, resamples, seed)
    return {name: float(values.mean()), f"{name}_interval": list(interval)}


def ratio_of_means(
    first: pd.Series, second: pd.Series, resamples: int, seed: int
) -> tuple[float | None, list[float] | None]:
    """Mean of `first` over mean of `second`, paired by their index, prompts, and its 95 % percentile interval.

    (None, None) where the mean of `second` is 0; resamples in which it is are left out.
    """
    both = pd.DataFrame({"first": first, "second": second})
    if not both["second"].mean():
        return None, None
    picks = np.random.default_rng(seed).integers(len(both), size=(resamples, len(both)))
    above, below = (both[name].to_numpy()[picks].mean(axis=1) for name in ("first", "second"))
    low, high = np.quantile(above[below != 0] / below[below != 0], (0.025, 0.975))
    return float(both["first"].mean() / both["second"].mean()), [float(low), float(high)]


def paired_differences(
    first: pd.DataFrame, second: pd.DataFrame, columns: Sequence[str], resamples: int, seed: int
) -> dict[str, float | list[float]]:
    """Mean `<column>_difference`, `first` minus `second` per prompt and seed, and its `<column>_interval`."""
    compared: dict[str, float | list[float]] = {}
    for column in columns:
        pairs = paired_difference(first, second, column)
        compared[f"{column}_difference"] = float(pairs["difference"].mean())
        interval = bootstrap_interval(pairs["difference"], pairs["prompt_id"], resamples, seed)
        compared[f"{column}_interval"] = list(interval)
    return compared


def paired_difference(first: pd.DataFrame, second: pd.DataFrame, column: str) -> pd.DataFrame:
    """`first` minus `second` per prompt and seed: columns prompt_id and difference."""
    both = first.merge(second, on=["prompt_id", "seed"], suffixes=("", "_second"), validate="one_to_one")
    return pd.DataFrame({"prompt_id": both["prompt_id"], "difference": both[column] - both[f"{column}_second"]})
