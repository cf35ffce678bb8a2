"""Prompts that leave the colour open: how much variety of colours a model has.

The entropy of the colours that the clips of one prompt show, over their seeds, is 0 for a model that has collapsed to
one colour, and near 1 for one that draws all alike. Few seeds lower it (12 uniform draws have 0.86), so that a model is
compared with real clips of as many seeds. They are uniform draws of the colours that can be learned: of half of the
pairs of symbol and motion, one of the six is held out from training.
"""

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from filmstill.evaluate.intervals import bootstrap_interval, ratio_of_means
from filmstill.evaluate.metrics import Metrics
from filmstill.params.evaluate import Evaluate
from filmstill.worlds.grammar import COLOURS


def normalised_entropy(shown: Sequence[str | None]) -> float:
    """Plug-in entropy of the colours that clips show in nats, over log(number of colours): from 0 to 1.

    A clip that shows none (None) is left out of the distribution, whose entropy is then multiplied by the share of
    clips that show one: what is broken adds no variety.
    """
    counts = Counter(colour for colour in shown if colour is not None)
    clips = counts.total()
    entropy = sum(n / clips * math.log(clips / n) for n in counts.values())
    return clips / len(shown) * entropy / math.log(len(COLOURS))


def entropy_metrics(clips: pd.DataFrame, params: Evaluate, seed: int) -> dict[str, Metrics]:
    """By arm, its mean entropy over prompts; and the student's over teacher's and real's. Intervals are over prompts.

    clips: columns arm, prompt_id and shown_colour, of the prompts that leave the colour open; {} if there are none.
    """
    table = clips.groupby(["arm", "prompt_id"])["shown_colour"].agg(lambda shown: normalised_entropy(list(shown)))
    by_arm = {str(arm): rows.droplevel("arm") for arm, rows in table.groupby("arm")}
    metrics: dict[str, Metrics] = {}
    for arm, entropy in by_arm.items():
        low, high = bootstrap_interval(entropy, entropy.index.to_series(), params.resamples, seed)
        metrics[arm] = {"entropy": float(entropy.mean()), "entropy_interval": [low, high]}
    for arm in ("teacher", "real") if by_arm else ():
        ratio, interval = ratio_of_means(by_arm["student"], by_arm[arm], params.resamples, seed)
        metrics[f"student_vs_{arm}"] = {"entropy_ratio": ratio, "entropy_ratio_interval": interval}
    return metrics
