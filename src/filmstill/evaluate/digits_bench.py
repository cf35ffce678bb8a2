"""digits-bench: the clips of the embedded world, scored from 0 (the world's floor) to 1 (its ceiling).

digits_scores.py measures it, dimension by dimension as in dimensions.py.
"""

from matplotlib.figure import Figure

from filmstill.evaluate import plots
from filmstill.evaluate.bench import Bench, Section
from filmstill.evaluate.digits_scores import AGGREGATES, RIGHT, measure
from filmstill.evaluate.dimensions import NAMES, QUALITY, SEMANTIC
from filmstill.evaluate.metrics import TITLES, Metrics, arm_of, interval_of, number, score_of
from filmstill.evaluate.results_table import ATTRIBUTES, DIGITS_TABLE
from filmstill.params.world import EMBEDDED

SUMMARY = ("all_attributes", "total")
GROUPS = {"Summary": SUMMARY, "Semantic": SEMANTIC, "Quality": tuple(QUALITY)}


def draw(metrics: Metrics) -> dict[str, Figure]:
    return {
        "scores": plots.scores(metrics, GROUPS, "digits-bench by dimension (this embedded world, not VBench)"),
        "drift": plots.drift(metrics, ATTRIBUTES),
        "speed": plots.speed(metrics),
    }


def note(metrics: Metrics) -> str:
    """The difference of student and teacher, paired by prompt."""
    against = metrics.get("student_vs_teacher", {})
    low, high = against.get("all_attributes_interval") or (None, None)
    return (
        f"{number(metrics.get('clips'), 0)} clips per arm. Student minus teacher, all right, paired by prompt: "
        f"{number(against.get('all_attributes_difference'))} (95 % interval {number(low)} to {number(high)})."
    )


def sections(metrics: Metrics) -> list[Section]:
    """Speed, dimensions, drift, diversity, and the meaning of 0 and 1."""
    diversity = [number(arm_of(metrics, arm).get("diversity")) for arm in TITLES]
    return [
        Section("Quality against time", plot=("speed", "score against seconds per clip, by arm")),
        Section(
            "Scores by dimension",
            "Small print: 95 % intervals, bootstrapped over prompts.",
            (["dimension", *TITLES.values()], dimension_rows(metrics)),
            ("scores", "scores by dimension and arm, with intervals"),
        ),
        Section(
            "Drift",
            DIGITS_TABLE.drift_line(metrics),
            plot=("drift", "all-attributes score by window of a long stream"),
        ),
        Section(
            "Diversity",
            "How much clips of one prompt differ from seed to seed.",
            (["", *TITLES.values()], [["diversity", *diversity]]),
        ),
        Section(
            "What 0 and 1 mean",
            "A dimension's 0 is the world's floor (shuffled prompts, noise), its 1 the ceiling (real clips through the "
            "codec); both are measured in the same run.",
            (["dimension", "floor", "ceiling"], bound_rows(metrics)),
        ),
    ]


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


DIGITS_BENCH = Bench(
    name=EMBEDDED,
    table=DIGITS_TABLE,
    measure=measure,
    scores=("all_attributes", *RIGHT, *AGGREGATES),
    dimensions=NAMES,
    with_interval=("all_attributes", *AGGREGATES),
    compared=("all_attributes", "total"),
    main_score="all_attributes",
    costs=("seconds_per_clip", "evaluations_per_clip", "first_block_seconds"),
    prompt_digits=4,
    page_title="digits-bench",
    page_warning="digits-bench: scores of this embedded world; not comparable with VBench",
    page_note=note,
    page_sections=sections,
    draw=draw,
)
