"""The report: three plots and one page that opens offline, drawn from the metrics alone.

Notable: a colour is an arm everywhere (Okabe and Ito's palette, told apart by colour-blind readers too) and
so is a marker; whatever was not measured is left out or a dash; images are data URIs, nothing is fetched.
"""

import base64
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from filmstill.evaluate.dimensions import QUALITY, SEMANTIC
from filmstill.evaluate.results_table import (
    ATTRIBUTES,
    COLUMNS,
    LONG_TITLES,
    NOTHING,
    TITLES,
    closing_rows,
    drift_line,
    finite,
    headline,
    number,
)
from filmstill.runtime.files import replacing, write_text

FIRST_LINE = "digits-bench: scores of this embedded world; not comparable with VBench"
GROUPS = {"Summary": ("all_attributes", "total"), "Semantic": SEMANTIC, "Quality": tuple(QUALITY)}
LOOKS = {  # an arm's colour and marker
    "real": ("#000000", "D"),
    "teacher": ("#0072B2", "s"),
    "undistilled": ("#56B4E9", "v"),
    "init": ("#E69F00", "^"),
    "student": ("#D55E00", "o"),
}
INK, GREY, LIGHT = "#1b2026", "#5b6470", "#e3e7ec"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "figure.facecolor": "white",
}
DPI = 160
CSS = """
:root { color-scheme: light dark; --ink: #1b2026; --soft: #5b6470; --line: #dfe3e8; --page: #fdfdfc; --mark: #f3f1ea }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf3; --soft: #98a3b0; --line: #323943; --page: #12151a; --mark: #1e242c }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 58rem;
       margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .6rem } h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem }
p { max-width: 44rem } .first, .note { color: var(--soft); font-size: .9rem } .lead { font-size: 1.15rem }
img { max-width: 100%; height: auto; border-radius: 8px; display: block }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .88rem; width: 100% }
th, td { padding: .42rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline;
         font-variant-numeric: tabular-nums }
th { font-weight: 600; vertical-align: bottom } th:first-child, td:first-child { text-align: left; min-width: 9rem }
tr.mark td { background: var(--mark); font-weight: 600 }
small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap }
"""


def write_report(metrics: dict[str, Any], out: Path) -> None:
    """Write plots/*.png and report.html into `out`; the page shows `out`/sheet.gif when it is there."""
    plots: dict[str, Callable[[dict[str, Any]], Figure]] = {"scores": scores, "drift": drift, "speed": speed}
    for name, draw in plots.items():
        with matplotlib.rc_context(STYLE), replacing(out / "plots" / f"{name}.png") as temporary:
            draw(metrics).savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    write_text(out / "report.html", page(metrics, out))


def score_of(values: dict[str, Any], name: str) -> float | None:
    """An arm's score by the name of a dimension or of a summary."""
    return finite(values.get("dimensions", {}).get(name, values.get(name)))


def interval_of(values: dict[str, Any], name: str) -> tuple[float, float] | None:
    """The 95 % interval of a score."""
    low, high = (finite(end) for end in values.get("intervals", {}).get(name) or (None, None))
    return None if low is None or high is None else (low, high)


def spread(places: list[float], gap: float) -> list[float]:
    """The places moved downwards as little as keeps neighbours `gap` apart: labels that do not collide."""
    moved, last = list(places), float("inf")
    for index in sorted(range(len(places)), key=places.__getitem__, reverse=True):
        moved[index] = last = min(places[index], last - gap)
    return moved


def scores(metrics: dict[str, Any]) -> Figure:
    """Every dimension a row, every arm a marker with its interval."""
    figure = Figure(figsize=(8.4, 8.6), layout="constrained")
    axes = figure.subplots()
    row, names = 0.0, []
    for group, dimensions in GROUPS.items():
        axes.text(-0.02, row - 0.72, group, ha="right", weight="bold", transform=axes.get_yaxis_transform())
        for name in dimensions:
            names.append((row, name.replace("_", " ")))
            _row_of_scores(axes, metrics, name, row)
            row += 1
        row += 0.9
    axes.set_yticks([place for place, _ in names], [name for _, name in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(row - 1.3, -1.1)
    axes.set_xlabel("score (0 the world's floor, 1 its ceiling), with 95 % interval")
    axes.grid(axis="x", color=LIGHT)
    axes.spines["left"].set_visible(False)
    for arm, (colour, marker) in LOOKS.items():
        axes.plot([], [], marker, color=colour, label=TITLES[arm])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=len(LOOKS), frameon=False, columnspacing=1.6)
    axes.set_title("digits-bench by dimension (this embedded world, not VBench)", pad=34)
    return figure


def _row_of_scores(axes: Axes, metrics: dict[str, Any], name: str, row: float) -> None:
    axes.axhspan(row - 0.46, row + 0.46, color="#f6f7f9", linewidth=0)
    for place, (arm, (colour, marker)) in enumerate(LOOKS.items()):
        values, y = arm_of(metrics, arm), row + 0.16 * (place - (len(LOOKS) - 1) / 2)
        score, interval = score_of(values, name), interval_of(values, name)
        if score is None:
            continue
        if interval:
            axes.plot(interval, [y, y], color=colour, linewidth=1.6, alpha=0.7)
        axes.plot([score], [y], marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6)


def drift(metrics: dict[str, Any]) -> Figure:
    """The long stream's all-attributes score, a step a window."""
    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    axes = figure.subplots()
    frames, colour = metrics.get("window_frames", 12), LOOKS["student"][0]
    windows = arm_of(metrics, "student").get("drift") or []
    axes.axvspan(0, frames, color="#f1f3f6", linewidth=0)
    axes.text(frames / 2, 1.1, "length trained on", ha="center", va="center", color=GREY, size=9)
    for index, score in enumerate(map(finite, windows)):
        if score is not None:
            ends, below = [(index + 0.03) * frames, (index + 0.97) * frames], score > 0.2
            axes.plot(ends, [score, score], color=colour, linewidth=4, solid_capstyle="butt")
            place, side = (score - 0.03, "top") if below else (score + 0.03, "bottom")
            axes.text((index + 0.5) * frames, place, number(score, 2), ha="center", va=side, color=INK)
    _attributes_drift(axes, metrics, frames)
    teacher = score_of(arm_of(metrics, "teacher"), "all_attributes")
    end = frames * max(len(windows), 1)
    if teacher is not None:
        axes.axhline(teacher, color=LOOKS["teacher"][0], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.text(end, 1.1, "dashed: teacher, one clip", ha="right", va="center", color=LOOKS["teacher"][0], size=9)
    axes.set(xlim=(0, end), ylim=(0, 1.18), xlabel="frame of the stream", ylabel="share of streams, right")
    axes.set_xticks([index * frames for index in range(max(len(windows), 1) + 1)])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_title("Drift: one long stream, scored window by window")
    return figure


def _attributes_drift(axes: Axes, metrics: dict[str, Any], frames: int) -> None:
    """A thin line an attribute, named at its end: which of them a long stream loses."""
    measured = arm_of(metrics, "student").get("drift_of", {})
    lines = [(title, measured[name]) for name, title in ATTRIBUTES.items() if measured.get(name)]
    places = spread([of[-1] for _, of in lines], 0.09)
    for (name, of), place, style in zip(lines, places, ("-", "--", ":"), strict=False):
        middles = [(index + 0.5) * frames for index in range(len(of))]
        axes.plot(middles, of, color=GREY, linewidth=1.2, linestyle=style, marker=".", zorder=1)
        axes.text(frames * (len(of) + 0.06), place, name, va="center", color=GREY, size=9, clip_on=False)


def speed(metrics: dict[str, Any]) -> Figure:
    """Seconds a clip against how often everything is right."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    points = []
    for arm in ("teacher", "undistilled", "init", "student"):
        values = arm_of(metrics, arm)
        seconds, score = finite(values.get("seconds_per_clip")), score_of(values, "all_attributes")
        if seconds is not None and seconds > 0 and score is not None:
            points.append((arm, seconds, score))
    same_speed = [score for arm, _, score in points if arm != "teacher"]  # the others cost alike: labels in a column
    places = [score for arm, _, score in points if arm == "teacher"] + spread(same_speed, 0.075)
    column = max((seconds for arm, seconds, _ in points if arm != "teacher"), default=0.0)  # right of every mark
    for (arm, seconds, score), place in zip(points, places, strict=True):
        colour, marker = LOOKS[arm]
        low, high = interval_of(metrics[arm], "all_attributes") or (score, score)
        axes.plot([seconds, seconds], [low, high], color=colour, linewidth=1.8, alpha=0.6)
        axes.plot([seconds], [score], marker, color=colour, markersize=9)
        first = finite(metrics[arm].get("first_block_seconds"))
        label = TITLES[arm] + ("" if first is None else f", first block {first * 1000:,.0f} ms")
        axes.annotate(label, (max(seconds, column), place), (11, 0), textcoords="offset points", va="center", size=9,
                      color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    real = score_of(arm_of(metrics, "real"), "all_attributes")
    if real is not None:
        axes.axhline(real, color=LOOKS["real"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate("real clips", (0.5, real), (0, 4), xycoords=("axes fraction", "data"), ha="center",
                      textcoords="offset points", size=9)  # fmt: skip
    axes.set(ylim=(min([-0.06, *(place - 0.05 for place in places)]), 1.1), ylabel="all attributes right")
    axes.set_xlabel("seconds a clip, logarithmic (left is faster)")
    if points:
        axes.set_xscale("log")
        axes.set_xlim(min(s for _, s, _ in points) / 1.6, max(s for _, s, _ in points) * 5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(color=LIGHT)
    faster = finite(metrics.get("student_vs_teacher", {}).get("speedup"))
    axes.set_title("Quality against time" + (f": the student is {faster:.0f} times faster" if faster else ""))
    return figure


def page(metrics: dict[str, Any], out: Path) -> str:
    """report.html: the pictures in `out` and every number of `metrics` worth reading, in one file."""
    marked = list(LONG_TITLES).index("student")
    diversity = [number(arm_of(metrics, arm).get("diversity")) for arm in TITLES]
    sections = [
        table_of(["arm", *COLUMNS], closing_rows(metrics), marked),
        "<h2>Side by side</h2><p>Same prompts, same seeds, every arm.</p>" + image(out / "sheet.gif", "clips by arm"),
        "<h2>Quality against time</h2>" + image(out / "plots/speed.png", "score against seconds a clip, by arm"),
        "<h2>Scores by dimension</h2><p>Small print: 95 % intervals, bootstrapped over prompts.</p>",
        table_of(["dimension", *TITLES.values()], dimension_rows(metrics)),
        image(out / "plots/scores.png", "scores by dimension and arm, with intervals"),
        f"<h2>Drift</h2><p>{html.escape(drift_line(metrics))}</p>",
        image(out / "plots/drift.png", "all-attributes score by window of a long stream"),
        "<h2>Diversity</h2><p>How much clips of one prompt differ from seed to seed.</p>",
        table_of(["", *TITLES.values()], [["diversity", *diversity]]),
        "<h2>What 0 and 1 mean</h2><p>A dimension's 0 is the world's floor (shuffled prompts, noise), its 1 the "
        "ceiling (real clips through the codec); both are measured in the same run.</p>",
        table_of(["dimension", "floor", "ceiling"], world_rows(metrics)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>filmstill: digits-bench</title>'
        f'<style>{CSS}</style></head>\n<body>\n<p class="first">{FIRST_LINE}</p>\n'
        f'<h1>Teacher to streaming student</h1>\n<p class="lead">{html.escape(headline(metrics))}</p>\n'
        f'<p class="note">{html.escape(pairing(metrics))}</p>\n' + "\n".join(sections) + "\n</body></html>\n"
    )


def arm_of(metrics: dict[str, Any], arm: str) -> dict[str, Any]:
    """What was measured of an arm; nothing where it was not run."""
    return metrics.get(arm) or {}


def pairing(metrics: dict[str, Any]) -> str:
    """How far the student is from the teacher, the prompts paired."""
    against = metrics.get("student_vs_teacher", {})
    low, high = against.get("all_attributes_interval") or (None, None)
    return (
        f"{number(metrics.get('clips'), 0)} clips an arm. Student minus teacher, all right, paired by prompt: "
        f"{number(against.get('all_attributes_difference'))} (95 % interval {number(low)} to {number(high)})."
    )


def dimension_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """A row a dimension: the score of every arm, its interval in small print."""
    rows = []
    for name in (*GROUPS["Summary"], *SEMANTIC, *QUALITY):
        cells = []
        for arm in TITLES:
            values = arm_of(metrics, arm)
            interval = interval_of(values, name)
            small = f"\n{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            cells.append(number(score_of(values, name)) + small)
        rows.append([name.replace("_", " "), *cells])
    return rows


def world_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """A row a dimension: the raw values that count as 0 and as 1."""
    ends = [metrics.get("world", {}).get(end, {}) for end in ("floor", "ceiling")]
    return [[name.replace("_", " "), *(number(end.get(name), 4) for end in ends)] for name in (*SEMANTIC, *QUALITY)]


def table_of(heading: list[str], rows: list[list[str]], marked: int | None = None) -> str:
    """An HTML table; what follows a line break in a cell is small print."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heading)
    body = []
    for index, row in enumerate(rows):
        cells = ""
        for cell in row:
            text, _, small = html.escape(cell).partition("\n")
            cells += f"<td>{text}" + (f"<small>{small}</small>" if small else "") + "</td>"
        body.append(f'<tr class="mark">{cells}</tr>' if index == marked else f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def image(path: Path, caption: str) -> str:
    """A picture inside the page; a dash where it was not made."""
    if not path.is_file():
        return f"<p>{NOTHING}</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{html.escape(caption)}" src="data:image/{path.suffix[1:]};base64,{data}"></p>'
