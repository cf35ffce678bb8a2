"""The results of a run, as the terminal, the page and the README show them: one row per arm, and three lines below.

Imports neither torch nor pandas, so that `python -m filmstill results` answers without delay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from filmstill.artifacts import RESULTS
from filmstill.evaluate.metrics import LONG_TITLES, MISSING, Metrics, finite, number, read_metrics
from filmstill.evaluate.requests import TIMED_AS, short_arms
from filmstill.params.world import EMBEDDED, OPEN
from filmstill.runtime.text_table import TextTable

COSTS = ("evaluations_per_clip", "seconds_per_clip", "first_block_seconds")
TIMED_ONCE = "measured once: they are the same network with other weights, in as many passes"
ATTRIBUTES = {"object": "digit", "colour": "colour", "motion": "motion"}  # key of the metrics -> label


@dataclass(frozen=True)
class ResultsTable:
    """The results table of a bench.

    arms: its rows. columns: heading -> (key of an arm's metrics, digits after the point). headline: the student in one
    line. drift_line: the long stream in one line.
    """

    title: str
    arms: tuple[str, ...]
    columns: dict[str, tuple[str, int]]
    headline: Callable[[Metrics], str]
    drift_line: Callable[[Metrics], str]

    def rows(self, metrics: Metrics) -> list[list[str]]:
        """Per arm, its name and its columns as text. Real clips are drawn, not generated: they have no cost."""
        rows = []
        for arm in self.arms:
            values = metrics.get(arm, {})
            shown = {**values, **dict.fromkeys(COSTS)} if arm == "real" else values
            cells = [number(shown.get(key), digits) for key, digits in self.columns.values()]
            rows.append([LONG_TITLES[arm], *cells])
        return rows

    @property
    def timing_note(self) -> str:
        """Which arms show times that were measured of another arm; "" if none does."""
        arms = " and ".join(f'"{LONG_TITLES[arm]}"' for arm in self.arms if arm in TIMED_AS)
        return f"times: {arms} show the student's, {TIMED_ONCE}" if arms else ""

    def for_terminal(self, metrics: Metrics) -> TextTable:
        """The table as rich prints it."""
        clips = finite(metrics.get("clips"))
        table = TextTable(self.title + (f", {clips:.0f} clips per arm" if clips else ""), ["", *self.columns])
        for arm, row in zip(self.arms, self.rows(metrics), strict=True):
            table.add(*row, bold=arm == "student")
        return table


def table_of(metrics: Metrics) -> ResultsTable:
    """The table of the bench that made `metrics`."""
    return TABLES.get(metrics.get("bench", EMBEDDED), DIGITS_TABLE)


def show_results(folder: Path = RESULTS) -> None:
    """Print the results of the last run and where its files are. Raises FilmstillError if there are none."""
    metrics = read_metrics(folder / "metrics.json")
    table = table_of(metrics)
    console = Console(highlight=False, markup=False)
    console.print(table.for_terminal(metrics))
    console.print(table.headline(metrics), style="bold", soft_wrap=True)
    console.print(table.drift_line(metrics), soft_wrap=True)
    console.print(table.timing_note, soft_wrap=True)
    console.print(f"side by side: {folder}/sheet.gif, film strip: {folder}/sheet.png", soft_wrap=True)
    console.print(f"everything on one page: {folder}/report.html", soft_wrap=True)
    console.print(f"plots: {folder}/plots/, or `dvc plots show`", soft_wrap=True)


def _digits_headline(metrics: Metrics) -> str:
    against = metrics.get("student_vs_teacher", {})
    return (
        f"student: {number(against.get('all_attributes_ratio'))} of the teacher's score, "
        f"{_times_faster(metrics)}, first block {_first_block(metrics)} ms"
    )


def _digits_drift_line(metrics: Metrics) -> str:
    """All-right score per window, and the score of each attribute in the last window."""
    student = metrics.get("student", {})
    scores = "  ".join(number(score, 2) for score in student.get("drift") or [None])
    line = f"drift: all right per window of {metrics.get('window_frames', 12)} frames of a long stream: {scores}"
    windows = student.get("drift_of", {})
    last = ", ".join(f"{label} {number(windows[key][-1], 2)}" for key, label in ATTRIBUTES.items() if windows.get(key))
    return f"{line} (in the last: {last})" if last else line


def _pixel_headline(metrics: Metrics) -> str:
    frames = metrics.get("student", {}).get("frames_per_second")
    return (
        f"student: {_times_faster(metrics)}, {number(frames, 1)} frames per second, "
        f"first block {_first_block(metrics)} ms"
    )


def _pixel_drift_line(metrics: Metrics) -> str:
    """Every statistic per window."""
    windows = metrics.get("student", {}).get("drift_of", {})
    shown = "; ".join(f"{name} {'  '.join(map(number, values))}" for name, values in windows.items())
    return f"drift per window of {metrics.get('window_frames')} latent frames of a long stream: {shown or MISSING}"


def _times_faster(metrics: Metrics) -> str:
    """The speedup over the teacher, and its range over the rounds of timing if there is one."""
    against = metrics.get("student_vs_teacher", {})
    faster = f"{number(against.get('speedup'), 1)} times faster than its teacher"
    ends = against.get("speedup_range")
    return f"{faster} ({number(ends[0], 1)} to {number(ends[1], 1)})" if ends else faster


def _first_block(metrics: Metrics) -> str:
    """Milliseconds until the student's first block can be shown."""
    seconds = finite(metrics.get("student", {}).get("first_block_seconds"))
    return MISSING if seconds is None else f"{seconds * 1000:.0f}"


DIGITS_TABLE = ResultsTable(
    title="digits-bench",
    arms=short_arms(EMBEDDED),
    columns={
        "all right": ("all_attributes", 3),
        "digit": ("object", 3),
        "colour": ("colour", 3),
        "motion": ("motion", 3),
        "total": ("total", 3),
        "network evaluations per clip": ("evaluations_per_clip", 2),
        "seconds per clip": ("seconds_per_clip", 3),
        "first block s": ("first_block_seconds", 3),
    },
    headline=_digits_headline,
    drift_line=_digits_drift_line,
)
PIXEL_TABLE = ResultsTable(
    title="pixel statistics",
    arms=short_arms(OPEN),
    columns={
        "steady": ("temporal_flickering", 3),
        "motion": ("motion", 4),
        "sharp": ("sharpness", 4),
        "passes per clip": ("evaluations_per_clip", 2),
        "seconds per clip": ("seconds_per_clip", 3),
        "decoder aside": ("network_seconds_per_clip", 3),
        "frames per second": ("frames_per_second", 1),
        "first block s": ("first_block_seconds", 3),
    },
    headline=_pixel_headline,
    drift_line=_pixel_drift_line,
)
TABLES = {EMBEDDED: DIGITS_TABLE, OPEN: PIXEL_TABLE}  # by `bench` in metrics.json
