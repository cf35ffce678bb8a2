"""Prompts that leave an attribute open: whether a model keeps the variety of what it was trained on.

The entropy of what the clips of one prompt show, over their seeds, is 0 for a model that has collapsed to one value,
and near 1 for one that draws all values alike. Few seeds lower it (12 uniform draws of 12 values have 0.78 of the
entropy), so that a model is compared with real clips, which are uniform draws, of as many seeds.
"""

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from filmstill.evaluate.intervals import bootstrap_interval, ratio_of_means
from filmstill.evaluate.metrics import Metrics
from filmstill.params.evaluate import Evaluate
from filmstill.worlds.grammar import ATTRIBUTES


def normalised_entropy(shown: Sequence[str | None], values: int) -> float:
    """Plug-in entropy of the values shown in nats, over log(values): from 0 to 1.

    A clip that shows none of them (None) is left out of the distribution, whose entropy is then multiplied by the share
    of clips that show one: what is broken adds no variety.
    """
    counts = Counter(value for value in shown if value is not None)
    clips = counts.total()
    entropy = sum(n / clips * math.log(clips / n) for n in counts.values())
    return clips / len(shown) * entropy / math.log(values)


def entropies(clips: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and prompt that leaves an attribute open: arm, prompt_id, left_open, entropy.

    clips: columns arm, prompt_id, left_open (an attribute, None) and shown (what the clip shows of it, None).
    """
    rows = clips.groupby(["arm", "prompt_id", "left_open"])["shown"].agg(list).reset_index()
    values = [len(ATTRIBUTES[name]) for name in rows["left_open"]]
    return rows.assign(entropy=list(map(normalised_entropy, rows.pop("shown"), values)))


def entropy_metrics(clips: pd.DataFrame, params: Evaluate, seed: int) -> dict[str, Metrics]:
    """By arm, its mean entropy over prompts and that of each attribute; and the student's over teacher's and real's.

    Intervals are over prompts. Empty if no prompt leaves an attribute open.
    """
    table = entropies(clips)
    by_arm = {str(arm): rows.set_index("prompt_id") for arm, rows in table.groupby("arm")}
    metrics: dict[str, Metrics] = {}
    for arm, rows in by_arm.items():
        entropy = rows["entropy"]
        metrics[arm] = {
            "entropy": float(entropy.mean()),
            "entropy_interval": list(bootstrap_interval(entropy, rows.index.to_series(), params.resamples, seed)),
            "entropy_of": entropy.groupby(rows["left_open"]).mean().to_dict(),
        }
    for arm in ("teacher", "real") if by_arm else ():
        ratio, interval = ratio_of_means(by_arm["student"]["entropy"], by_arm[arm]["entropy"], params.resamples, seed)
        metrics[f"student_vs_{arm}"] = {"entropy_ratio": ratio, "entropy_ratio_interval": interval}
    return metrics
