"""metrics.json: reading it, and writing its numbers and arms as text.

Every number may be missing (an arm without an interval, a file from an older run); it is then written as a dash.
"""

import math
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.runtime.files import read_json

Metrics = dict[str, Any]  # by arm, and a few facts about the whole evaluation

# Arms as sheets and plots name them, in the order in which they are shown.
TITLES = {
    "real": "real",
    "teacher": "teacher",
    "undistilled": "undistilled",
    "init": "ODE init",
    "student": "student",
}
LONG_TITLES = {**TITLES, "undistilled": "teacher's weights, causal, not distilled"}  # as tables name them
MISSING = "–"


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json. Raises FilmstillError for a missing or damaged file."""
    if not path.exists():
        raise FilmstillError(f"{path}: no results yet; run `dvc repro`")
    try:
        return read_json(path)
    except FilmstillError as damaged:
        raise FilmstillError(f"{damaged}; run `dvc repro` to write it again") from None


def finite(value: object) -> float | None:
    """`value` if it is a finite number, else None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def number(value: object, digits: int = 3) -> str:
    """`value` with `digits` after the point, or a dash if it is missing."""
    shown = finite(value)
    return MISSING if shown is None else f"{shown:.{digits}f}"


def arm_of(metrics: Metrics, arm: str) -> Metrics:
    """Metrics of one arm; empty if the arm was not run."""
    return metrics.get(arm) or {}


def score_of(values: Metrics, name: str) -> float | None:
    """Mean score of an arm, by the name of a dimension or of another score."""
    return finite(values.get("dimensions", {}).get(name, values.get(name)))


def interval_of(values: Metrics, name: str) -> tuple[float, float] | None:
    """95 % interval of a mean score of an arm."""
    low, high = (finite(end) for end in values.get("intervals", {}).get(name) or (None, None))
    return None if low is None or high is None else (low, high)
