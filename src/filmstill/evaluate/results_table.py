"""The closing table: what the run achieved, an arm a row, as the terminal and the report show it.

Notable: every number may be missing (an arm without an interval, a metrics file of an older run) and is
then a dash, never an error; only a missing or unreadable metrics.json is one, in one line.
"""

import json
import math
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from filmstill.artifacts import RESULTS
from filmstill.errors import FilmstillError
from filmstill.params.world import OPEN

# What the arms are called on sheets and plots, and, spelled out, in tables; in the order they are shown.
TITLES = {
    "real": "real",
    "teacher": "teacher",
    "undistilled": "undistilled",
    "init": "ODE init",
    "student": "student",
}
LONG_TITLES = {**TITLES, "undistilled": "teacher's weights, causal, not distilled"}
Columns = dict[str, tuple[str, int]]  # the table's heading: (key of an arm's metrics, digits after the point)
COLUMNS: Columns = {
    "all right": ("all_attributes", 3),
    "digit": ("object", 3),
    "colour": ("colour", 3),
    "motion": ("motion", 3),
    "total": ("total", 3),
    "network evaluations a clip": ("evaluations_per_clip", 2),
    "seconds a clip": ("seconds_per_clip", 3),
    "first block s": ("first_block_seconds", 3),
}
OPEN_COLUMNS: Columns = {
    "steady": ("temporal_flickering", 3),
    "motion": ("motion", 4),
    "sharp": ("sharpness", 4),
    "passes a clip": ("evaluations_per_clip", 2),
    "seconds a clip": ("seconds_per_clip", 3),
    "decoder aside": ("network_seconds_per_clip", 3),
    "frames a second": ("frames_per_second", 1),
    "first block s": ("first_block_seconds", 3),
}
ATTRIBUTES = {"object": "digit", "colour": "colour", "motion": "motion"}  # key of the metrics: what it is here
COSTS = ("evaluations_per_clip", "seconds_per_clip", "first_block_seconds")
NOTHING = "–"


def finite(value: object) -> float | None:
    """A number that can be shown, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def number(value: object, digits: int = 3) -> str:
    """`value` with `digits` after the point; a dash where there is none."""
    shown = finite(value)
    return NOTHING if shown is None else f"{shown:.{digits}f}"


def is_open(metrics: dict[str, Any]) -> bool:
    """Whether the clips are of the open world, where nothing says what is right."""
    return metrics.get("bench") == OPEN


def columns(metrics: dict[str, Any]) -> Columns:
    return OPEN_COLUMNS if is_open(metrics) else COLUMNS


def titles(metrics: dict[str, Any]) -> dict[str, str]:
    """The arms of this evaluation, spelled out: nobody draws real clips of the open world."""
    return {arm: title for arm, title in LONG_TITLES.items() if arm != "real" or not is_open(metrics)}


def closing_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """A row an arm: its name, then its columns as text. Real clips are drawn, not generated: they have no cost."""
    rows = []
    for arm, title in titles(metrics).items():
        values = metrics.get(arm, {})
        shown = {**values, **dict.fromkeys(COSTS)} if arm == "real" else values
        rows.append([title, *(number(shown.get(key), digits) for key, digits in columns(metrics).values())])
    return rows


def closing_table(metrics: dict[str, Any]) -> Table:
    """The table a run ends with."""
    clips = finite(metrics.get("clips"))
    bench = "pixel statistics" if is_open(metrics) else "digits-bench"
    title = bench + (f", {clips:.0f} clips an arm" if clips else "")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", min_width=9)
    for heading in columns(metrics):
        longest = max(map(len, heading.split()))  # a heading breaks between words, never inside one
        table.add_column(heading, justify="right", vertical="bottom", min_width=longest, max_width=max(longest, 6))
    for arm, row in zip(titles(metrics), closing_rows(metrics), strict=True):
        table.add_row(*row, style="bold" if arm == "student" else None)
    return table


def headline(metrics: dict[str, Any]) -> str:
    """The run in one line: how good, how fast, how soon."""
    against = metrics.get("student_vs_teacher", {})
    first = finite(metrics.get("student", {}).get("first_block_seconds"))
    wait = NOTHING if first is None else f"{first * 1000:.0f}"
    if is_open(metrics):
        speed = number(metrics.get("student", {}).get("frames_per_second"), 1)
        return (
            f"student: {number(against.get('speedup'), 1)} times faster than its teacher, {speed} frames a second, "
            f"first block {wait} ms"
        )
    return (
        f"student: {number(against.get('all_attributes_ratio'))} of the teacher's score, "
        f"{number(against.get('speedup'), 1)} times faster, first block {wait} ms"
    )


def drift_line(metrics: dict[str, Any]) -> str:
    """The long stream's all-right score, a number a window, and what is left of each attribute in the last."""
    student = metrics.get("student", {})
    if is_open(metrics):
        of = student.get("drift_of", {})
        shown = "; ".join(f"{name} {'  '.join(number(x) for x in values)}" for name, values in of.items())
        return f"drift per window of {metrics.get('window_frames')} latent frames of a long stream: {shown or NOTHING}"
    scores = "  ".join(number(score, 2) for score in student.get("drift") or [None])
    line = f"drift: all right per window of {metrics.get('window_frames', 12)} frames of a long stream: {scores}"
    of = student.get("drift_of", {})
    last = ", ".join(f"{title} {number(of[name][-1], 2)}" for name, title in ATTRIBUTES.items() if of.get(name))
    return f"{line} (in the last: {last})" if last else line


def read_metrics(path: Path) -> dict[str, Any]:
    """What the evaluate stage measured; FilmstillError where it has not, or the file is damaged."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FilmstillError(f"{path}: no results yet; run `dvc repro`") from None
    except (OSError, ValueError) as error:
        raise FilmstillError(f"{path}: cannot be read as JSON ({error}); run `dvc repro` to write it again") from error
    if not isinstance(metrics, dict):
        raise FilmstillError(f"{path}: a JSON {type(metrics).__name__} where an object belongs; run `dvc repro`")
    return metrics


def show_results(folder: Path = RESULTS) -> None:
    """Print what the last run achieved and where to look."""
    metrics = read_metrics(folder / "metrics.json")
    console = Console(highlight=False)
    console.print(closing_table(metrics))
    console.print(headline(metrics), style="bold", soft_wrap=True)
    console.print(drift_line(metrics), soft_wrap=True)
    console.print(f"side by side: {folder}/sheet.gif, film strip: {folder}/sheet.png", soft_wrap=True)
    console.print(f"everything on one page: {folder}/report.html", soft_wrap=True)
    console.print(f"plots: {folder}/plots/, or `dvc plots show`", soft_wrap=True)
