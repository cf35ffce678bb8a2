"""symbols-bench: clips of the embedded world, what is right in them and scores from 0 (its floor) to 1 (its ceiling).

symbols_scores.py measures it, dimension by dimension as in dimensions.py; drift.py the windows of the long stream, and
open_prompts.py the variety of clips whose prompt leaves the colour open.
"""

from matplotlib.figure import Figure

from filmstill.evaluate import plots
from filmstill.evaluate.bench import Bench, Section
from filmstill.evaluate.dimensions import NAMES, QUALITY, SEMANTIC
from filmstill.evaluate.judged_clips import JUDGED
from filmstill.evaluate.metrics import CHANGED_SHEET, TITLES, Metrics, arm_of, interval_of, number, score_of
from filmstill.evaluate.results_table import (
    CHANGE_HEADING,
    STREAM_HEADING,
    SYMBOLS_TABLE,
    symbols_change_rows,
    symbols_stream_rows,
)
from filmstill.evaluate.symbols_scores import AGGREGATES, measure
from filmstill.params.world import EMBEDDED

CHANGE_PLOT = "prompt_change"  # name of its file
SUMMARY = ("all_attributes", "total")
GROUPS = {"Summary": SUMMARY, "Semantic": SEMANTIC, "Quality": tuple(QUALITY)}


def draw(metrics: Metrics) -> dict[str, Figure]:
    return {
        "scores": plots.scores(metrics, GROUPS, "symbols-bench by dimension (this embedded world, not VBench)"),
        "drift": plots.drift(metrics),
        "speed": plots.speed(metrics),
        **({CHANGE_PLOT: plots.prompt_change(metrics)} if metrics.get("prompt_change") else {}),
    }


def note(metrics: Metrics) -> str:
    """The difference of student and teacher, paired by prompt."""
    against = metrics.get("student_vs_teacher", {})
    low, high = against.get("all_attributes_interval") or (None, None)
    return (
        f"{number(metrics.get('clips'), 0)} clips per arm in the table. Student minus teacher, all right, paired by "
        "prompt: "
        f"{number(against.get('all_attributes_difference'))} (95 % interval {number(low)} to {number(high)})."
    )


def sections(metrics: Metrics) -> list[Section]:
    """The long stream, pictures and changes, speed, dimensions, variety, and the meaning of 0 and 1."""
    return [
        Section(
            "Drift",
            "Long streams, in windows that begin at every block of the student. First phase kept: all is right at the "
            "end of the stream, in the phase of its first right window.",
            (STREAM_HEADING, symbols_stream_rows(metrics)),
            ("drift", "share of long streams that are all right, by window"),
        ),
        *change_sections(metrics),
        Section("Quality against time", plot=("speed", "score against seconds per clip, by arm")),
        Section(
            "Scores by dimension",
            "Small print: 95 % intervals, bootstrapped over prompts.",
            (["dimension", *TITLES.values()], dimension_rows(metrics)),
            ("scores", "scores by dimension and arm, with intervals"),
        ),
        Section(
            "Open prompts and held-out combinations",
            "Entropy, over seeds, of the colours shown where a prompt leaves the colour open: 0 if all show one, 1 "
            "if all alike. As many real clips, drawn uniformly among the colours trained on, are the reference. All "
            "right: any colour will do.",
            (["", *TITLES.values()], group_rows(metrics)),
        ),
        Section(
            "What 0 and 1 mean",
            "A dimension's 0 is the world's floor (shuffled prompts, noise), its 1 the ceiling (real clips through the "
            "codec); both are measured in the same run.",
            (["dimension", "floor", "ceiling"], bound_rows(metrics)),
        ),
    ]


def change_sections(metrics: Metrics) -> list[Section]:
    """Clips that begin with a picture and streams whose prompt changes, if there are any."""
    rows = symbols_change_rows(metrics)
    if not rows:
        return []
    gif = (CHANGED_SHEET, "streams of the student whose prompt changes")
    return [
        Section(
            "From a picture, and prompts that change",
            "Image-to-video: clips that begin with the first frame of the real clip of their prompt; its phase is kept "
            "where every frame is in place at the phase of that real clip. Prompts that change in mid-stream: windows "
            "that begin at every block, judged under the first prompt where they end by the change, under the new one "
            "where they begin from it on.",
            (CHANGE_HEADING, rows),
            (CHANGE_PLOT, "share of streams that are right, by window before and after the change"),
            gif,
        )
    ]


def group_rows(metrics: Metrics) -> list[list[str]]:
    """Entropy and shares of clips all right, of the groups beside main: a cell per arm, with its interval."""
    keys = {"entropy": "entropy", "all right, colour open": "open", "all right, held-out combinations": "held_out"}
    rows = []
    for label, key in keys.items():
        cells = []
        for arm in TITLES:
            values = arm_of(metrics, arm)
            low, high = values.get(f"{key}_interval") or (None, None)
            cells.append(number(values.get(key)) + (f"\n{number(low)} to {number(high)}" if low is not None else ""))
        rows.append([label, *cells])
    return rows


def dimension_rows(metrics: Metrics) -> list[list[str]]:
    """One row per score and dimension: its mean for every arm, with the interval in small print."""
    rows = []
    for name in (*SUMMARY, *SEMANTIC, *QUALITY):
        cells = []
        for arm in TITLES:
            values = arm_of(metrics, arm)
            interval = interval_of(values, name)
            small = f"\n{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            cells.append(number(score_of(values, name)) + small)
        rows.append([name.replace("_", " "), *cells])
    return rows


def bound_rows(metrics: Metrics) -> list[list[str]]:
    """One row per dimension: the raw values that count as 0 and as 1."""
    bounds = [metrics.get("world", {}).get(bound, {}) for bound in ("floor", "ceiling")]
    return [
        [name.replace("_", " "), *(number(bound.get(name), 4) for bound in bounds)] for name in (*SEMANTIC, *QUALITY)
    ]


SYMBOLS_BENCH = Bench(
    name=EMBEDDED,
    table=SYMBOLS_TABLE,
    measure=measure,
    scores=(*JUDGED, *AGGREGATES),
    dimensions=NAMES,
    with_interval=("all_attributes", "fidelity", *AGGREGATES),
    compared=("all_attributes", "fidelity", "total"),
    main_score="all_attributes",
    costs=("seconds_per_clip", "evaluations_per_clip", "first_block_seconds"),
    prompt_digits=4,
    page_title="symbols-bench",
    page_warning="symbols-bench: scores of this embedded world; not comparable with VBench",
    page_note=note,
    page_sections=sections,
    draw=draw,
)
