"""metrics.json: reading it, and writing its numbers and arms as text.

Every number may be missing (an arm without an interval, a file from an older run); it is then written as a dash.
"""

import math
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError, require
from filmstill.evaluate.requests import ARMS
from filmstill.params.evaluate import CHANGE_BLOCKS
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
CHANGED_SHEET = "changed_streams"  # name of the pictures in plots of streams whose prompt changes
WITHIN_BLOCKS = (
    f"within_{CHANGE_BLOCKS}_blocks"  # of prompt_change: streams that are right under the new prompt by then
)
STAY_RIGHT = "stay_right"  # of prompt_change: streams that are right by then, and in every later window


def read_metrics(path: Path) -> Metrics:
    """Read metrics.json. Raises FilmstillError for a missing or damaged file, and for JSON of another shape."""
    if not path.exists():
        raise FilmstillError(f"{path}: no results yet; run `dvc repro`")
    try:
        metrics = read_json(path)
        _check_shape(metrics, path)
        return metrics
    except FilmstillError as damaged:
        raise FilmstillError(f"{damaged}; run `dvc repro` to write it again") from None


def _check_shape(metrics: Metrics, path: Path) -> None:
    """Raise FilmstillError for a value of another kind than the evaluate stage writes; each may be missing."""

    def checked(values: Metrics, key: str, kind: type, allowed: str, where: str = "") -> Any:
        value = values.get(key, kind())
        require(isinstance(value, kind), f"{path}: {where}{key}", value, allowed)
        return value

    checked(metrics, "bench", str, "the name of a bench")
    checked(metrics, "window_frames", int, "a number of frames")
    for name in (*ARMS, "student_vs_teacher", "student_vs_real", "stream", "picture", "prompt_change"):
        values = checked(metrics, name, dict, "an object")
        for key, pair in values.items():
            right = not key.endswith(("_range", "_interval")) or pair is None or (type(pair) is list and len(pair) == 2)
            require(right, f"{path}: {name}.{key}", pair, "two numbers, the least and the most")
    for key in (windows := checked(metrics.get("stream", {}), "by_window", dict, "an object", "stream.")):
        checked(windows, key, list, "a list with a number per window", "stream.by_window.")
    for key in (offsets := checked(metrics.get("stream", {}), "by_offset", dict, "an object", "stream.")):
        checked(offsets, key, dict, "an object", "stream.by_offset.")


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
