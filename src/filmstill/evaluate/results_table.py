"""The results of a run, as the terminal, the page and the README show them: one row per arm, one per offset of the long
stream's windows, those of a given picture and of a change of prompt, and a few lines.

Imports neither torch nor pandas, so that `python -m filmstill results` answers without delay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from filmstill.artifacts import RESULTS
from filmstill.evaluate.metrics import (
    CHANGED_SHEET,
    LONG_TITLES,
    MISSING,
    STAY_RIGHT,
    WITHIN_BLOCKS,
    Metrics,
    finite,
    number,
    read_metrics,
)
from filmstill.evaluate.requests import TIMED_AS, short_arms
from filmstill.params.evaluate import CHANGE_BLOCKS
from filmstill.params.world import EMBEDDED, OPEN
from filmstill.runtime.text_table import TextTable

Table = tuple[list[str], list[list[str]]]  # heading and rows

COSTS = ("evaluations_per_clip", "seconds_per_clip", "first_block_seconds")
TIMED_ONCE = "measured once: they are the same network with other weights, in as many passes"
EVERY_OFFSET = "all"
STREAM_HEADING = ["windows from frame", "worst window", "mean window", "first phase kept", "last fidelity dB"]
CHANGE_HEADING = ["from a picture, and as the prompt changes", "all right", "95 % interval"]
PICTURE_ROWS = {  # key of metrics "picture" -> row
    "all_attributes": "clips that begin with a picture",
    "strict": "... and keep its phase",
}
CHANGE_ROWS = {  # key of metrics "prompt_change" -> row
    "before": "windows before the change, first prompt",
    WITHIN_BLOCKS: f"streams right within {CHANGE_BLOCKS} blocks of it, new prompt",
    STAY_RIGHT: "... and in every window from then on",
    "later_mean": "windows from then on, their mean",
    "later_worst": "the worst of them",
}


@dataclass(frozen=True)
class ResultsTable:
    """The results table of a bench.

    arms: its rows. columns: heading -> (key of an arm's metrics, digits after the point). headline: the student in one
    line. lines: what else is worth one. further: heading and rows of the tables below, those of streams.
    """

    title: str
    arms: tuple[str, ...]
    columns: dict[str, tuple[str, int]]
    headline: Callable[[Metrics], str]
    lines: Callable[[Metrics], list[str]]
    further: Callable[[Metrics], list[Table]] = lambda _: []

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

    def further_for_terminal(self, metrics: Metrics) -> list[TextTable]:
        """The tables below as rich prints them."""
        tables = []
        for heading, rows in self.further(metrics):
            tables.append(table := TextTable("", heading))
            for row in rows:
                table.add(*row, bold=row[0] == EVERY_OFFSET)
        return tables


def table_of(metrics: Metrics) -> ResultsTable:
    """The table of the bench that made `metrics`."""
    return TABLES.get(metrics.get("bench", EMBEDDED), SYMBOLS_TABLE)


def show_results(folder: Path = RESULTS) -> None:
    """Print the results of the last run and where its files are. Raises FilmstillError if there are none."""
    metrics = read_metrics(folder / "metrics.json")
    table = table_of(metrics)
    console = Console(highlight=False, markup=False)
    console.print(table.for_terminal(metrics))
    for further in table.further_for_terminal(metrics):
        console.print(further)
    console.print(table.headline(metrics), style="bold", soft_wrap=True)
    for line in (*table.lines(metrics), table.timing_note):
        console.print(line, soft_wrap=True)
    console.print(f"side by side: {folder}/sheet.gif, film strip: {folder}/sheet.png", soft_wrap=True)
    console.print(f"long streams: {folder}/stream.gif, film strip: {folder}/stream.png", soft_wrap=True)
    if metrics.get("prompt_change"):
        sheet = f"{folder}/plots/{CHANGED_SHEET}"
        console.print(f"prompts that change: {sheet}.gif, film strip: {sheet}.png", soft_wrap=True)
    console.print(f"everything on one page: {folder}/report.html", soft_wrap=True)
    console.print(f"plots: {folder}/plots/, or `dvc plots show`", soft_wrap=True)


def _symbols_headline(metrics: Metrics) -> str:
    against = metrics.get("student_vs_teacher", {})
    return (
        f"student: {number(against.get('all_attributes_ratio'))} of the teacher's score, "
        f"{_times_faster(metrics)}, first block {_first_block(metrics)} ms"
    )


def _symbols_lines(metrics: Metrics) -> list[str]:
    """The student on held-out combinations, its variety, and its long stream."""
    teacher, real = (metrics.get(f"student_vs_{arm}", {}) for arm in ("teacher", "real"))
    stream = metrics.get("stream", {})
    return [
        f"held-out combinations: {_ratio(teacher, 'held_out_ratio')} of the teacher's score",
        f"entropy of colours left open: {_ratio(teacher, 'entropy_ratio')} of the teacher's, "
        f"{_ratio(real, 'entropy_ratio')} of real clips'; all right {number(metrics.get('student', {}).get('open'))} "
        f"of these clips (teacher {number(metrics.get('teacher', {}).get('open'))})",
        f"long stream of {number(stream.get('frames'), 0)} frames, {number(stream.get('prompts'), 0)} prompts: "
        f"all right {number(stream.get('worst_window'))} in the worst window of {metrics.get('window_frames', 12)}, "
        f"{number(stream.get('mean_window'))} in the mean one; {number(stream.get('phase_kept'))} right and still in "
        "their first phase at the end",
        *_change_lines(metrics),
    ]


def _change_lines(metrics: Metrics) -> list[str]:
    """Clips that begin with a picture and streams whose prompt changes, if there are any."""
    picture, change = metrics.get("picture"), metrics.get("prompt_change")
    lines = []
    if picture:
        lines.append(
            f"from a picture, {number(picture.get('prompts'), 0)} prompts: all right and in its phase "
            f"{_ratio(picture, 'strict')}"
        )
    if change:
        lines.append(
            f"prompt changed at frame {number(change.get('change_frame'), 0)}, {number(change.get('prompts'), 0)} "
            f"prompts: the new one right within {CHANGE_BLOCKS} blocks in {_ratio(change, WITHIN_BLOCKS)}, and in "
            f"every window from then on in {_ratio(change, STAY_RIGHT)}; of the streams, "
            f"{number(change.get('later_worst'))} are right in the worst of these windows, "
            f"{number(change.get('later_mean'))} in the mean one"
        )
    return lines


def _ratio(against: Metrics, name: str) -> str:
    """A ratio of two arms or a share, and its 95 % interval if there is one."""
    ratio, ends = number(against.get(name)), against.get(f"{name}_interval")
    return f"{ratio} ({number(ends[0])} to {number(ends[1])})" if ends else ratio


def symbols_stream_rows(metrics: Metrics) -> list[list[str]]:
    """A row per offset of the windows, and one of them all: the worst of each column, and the mean window's mean."""
    stream = metrics.get("stream", {})
    rows = {**stream.get("by_offset", {}), EVERY_OFFSET: stream}
    keys = {"worst_window": 3, "mean_window": 3, "phase_kept": 3, "last_fidelity": 2}
    return [[offset, *(number(row.get(key), digits) for key, digits in keys.items())] for offset, row in rows.items()]


def symbols_change_rows(metrics: Metrics) -> list[list[str]]:
    """A row per share of clips that begin with a picture and of streams whose prompt changes; [] if there are none."""
    rows = []
    for name, labels in (("picture", PICTURE_ROWS), ("prompt_change", CHANGE_ROWS)):
        values = metrics.get(name) or {}
        for key, label in labels.items() if values else ():
            low, high = values.get(f"{key}_interval") or (None, None)
            interval = MISSING if low is None else f"{number(low)} to {number(high)}"
            rows.append([label, number(values.get(key)), interval])
    return rows


def _symbols_further(metrics: Metrics) -> list[Table]:
    """The long stream's table, and that of pictures and changes if any were made."""
    changes = symbols_change_rows(metrics)
    return [(STREAM_HEADING, symbols_stream_rows(metrics)), *([(CHANGE_HEADING, changes)] if changes else [])]


def _pixel_headline(metrics: Metrics) -> str:
    frames = metrics.get("student", {}).get("frames_per_second")
    return (
        f"student: {_times_faster(metrics)}, {number(frames, 1)} frames per second, "
        f"first block {_first_block(metrics)} ms"
    )


def _pixel_lines(metrics: Metrics) -> list[str]:
    """Every statistic of the long stream per window."""
    windows = metrics.get("stream", {}).get("by_window", {})
    shown = "; ".join(f"{name} {'  '.join(map(number, values))}" for name, values in windows.items())
    return [f"drift per window of {metrics.get('window_frames')} latent frames of a long stream: {shown or MISSING}"]


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


SYMBOLS_TABLE = ResultsTable(
    title="symbols-bench",
    arms=short_arms(EMBEDDED),
    columns={
        "all right": ("all_attributes", 3),
        "symbol": ("symbol", 3),
        "colour": ("colour", 3),
        "motion": ("motion", 3),
        "fidelity dB": ("fidelity", 2),
        "entropy": ("entropy", 3),
        "held out": ("held_out", 3),
        "passes per clip": ("evaluations_per_clip", 2),
        "s per clip": ("seconds_per_clip", 3),
        "first block s": ("first_block_seconds", 3),
    },
    headline=_symbols_headline,
    lines=_symbols_lines,
    further=_symbols_further,
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
    lines=_pixel_lines,
)
TABLES = {EMBEDDED: SYMBOLS_TABLE, OPEN: PIXEL_TABLE}  # by `bench` in metrics.json
