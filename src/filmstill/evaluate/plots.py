"""Plots of a report, drawn from metrics alone; a missing number is left out.

Each arm has its colour (Okabe and Ito's palette, distinguishable by colour-blind readers too) and its marker.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from filmstill.evaluate.metrics import TITLES, WITHIN_BLOCKS, Metrics, arm_of, finite, interval_of, number, score_of
from filmstill.params.evaluate import CHANGE_BLOCKS
from filmstill.runtime.files import replacing

LOOKS = {  # colour and marker per arm, on every plot
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


def save_plots(draw: Callable[[Metrics], Mapping[str, Figure]], metrics: Metrics, folder: Path) -> None:
    """Write the plots of `metrics` into `folder` as <name>.png."""
    with matplotlib.rc_context(STYLE):
        for name, figure in draw(metrics).items():
            with replacing(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def spread(places: list[float], gap: float) -> list[float]:
    """Places of labels that do not overlap: `places`, moved down by as little as keeps neighbours `gap` apart."""
    moved, last = list(places), float("inf")
    for index in sorted(range(len(places)), key=places.__getitem__, reverse=True):
        moved[index] = last = min(places[index], last - gap)
    return moved


def scores(metrics: Metrics, groups: Mapping[str, Sequence[str]], title: str) -> Figure:
    """Groups of scores from 0 (the world's floor) to 1: one row per score, one marker with its interval per arm."""
    figure = Figure(figsize=(8.4, 8.6), layout="constrained")
    axes = figure.subplots()
    row, names = 0.0, []
    for group, members in groups.items():
        axes.text(-0.02, row - 0.72, group, ha="right", weight="bold", transform=axes.get_yaxis_transform())
        for name in members:
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
    axes.set_title(title, pad=34)
    return figure


def _row_of_scores(axes: Axes, metrics: Metrics, name: str, row: float) -> None:
    axes.axhspan(row - 0.46, row + 0.46, color="#f6f7f9", linewidth=0)
    for place, (arm, (colour, marker)) in enumerate(LOOKS.items()):
        values, y = arm_of(metrics, arm), row + 0.16 * (place - (len(LOOKS) - 1) / 2)
        score, interval = score_of(values, name), interval_of(values, name)
        if score is None:
            continue
        if interval:
            axes.plot(interval, [y, y], color=colour, linewidth=1.6, alpha=0.7)
        axes.plot([score], [y], marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6)


def drift(metrics: Metrics) -> Figure:
    """Share of the long streams that are all right, by where a window ends: offset 0 with its interval, others thin."""
    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    axes = figure.subplots()
    size, colour = metrics.get("window_frames", 12), LOOKS["student"][0]
    windows = metrics.get("windows") or {"offset": [], "frame": []}
    end = max([size, *windows["frame"]])
    teacher = score_of(arm_of(metrics, "teacher"), "all_attributes")
    if teacher is not None:
        axes.axhline(teacher, color=LOOKS["teacher"][0], linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
        axes.text(end, 1.09, "dashed: teacher, one clip", ha="right", va="center", color=LOOKS["teacher"][0], size=9)
    for offset in sorted(set(windows["offset"]), reverse=True):
        frames, right, low, high, kept = _windows_at(windows, offset)
        if offset == 0:
            axes.fill_between(frames, low, high, color=colour, alpha=0.18, linewidth=0, label="95 % over prompts")
            axes.plot(frames, right, color=colour, linewidth=2.2, marker="o", markersize=4, label="all right")
            axes.plot(frames, kept, color=INK, linewidth=1.2, linestyle=":", label="… and in the first phase")
        else:
            label = "windows at other offsets" if offset == max(windows["offset"]) else None
            axes.plot(frames, right, color=GREY, linewidth=0.8, alpha=0.7, zorder=1, label=label)
    _mark_worst(axes, windows, end)
    axes.set(xlim=(0, end * 1.01), ylim=(0, 1.16), xlabel="frame of the stream at which the window ends")
    axes.set(ylabel="share of streams, all right", yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y", color=LIGHT)
    if windows["frame"]:
        axes.legend(loc="best", frameon=False, ncols=2, fontsize=9)
    axes.set_title(f"Drift: long streams in windows of {size} frames")
    return figure


def _windows_at(windows: Mapping[str, list[float]], offset: int) -> list[list[float]]:
    """Ends of the windows of an offset, and per window the share all right, both ends of its interval, phase kept."""
    names = ("frame", "all_attributes", "all_attributes_low", "all_attributes_high", "phase_kept")
    rows = [row for row, at in enumerate(windows["offset"]) if at == offset]
    return [[windows[name][row] for row in rows] for name in names]


def _mark_worst(axes: Axes, windows: Mapping[str, list[float]], end: float) -> None:
    """Name the worst of all windows."""
    if not windows["frame"]:
        return
    score, frame = min(zip(windows["all_attributes"], windows["frame"], strict=True))
    above = score < 0.5
    axes.plot([frame], [score], "o", color=INK, markersize=9, markerfacecolor="none", markeredgewidth=1.4)
    axes.annotate(f"worst window {number(score, 2)}", (frame, score), (0, 12 if above else -16), color=INK, size=9,
                  textcoords="offset points", ha="right" if frame > end / 2 else "left")  # fmt: skip


def prompt_change(metrics: Metrics) -> Figure:
    """Share of streams that are right, by where a window begins: before the change under the first prompt, then under
    the new one."""
    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    axes = figure.subplots()
    windows, colour = metrics.get("changed_windows") or {"begins": []}, LOOKS["student"][0]
    at = finite(metrics["prompt_change"].get("change_frame")) or 0.0
    for label, style, within in (
        ("first prompt", (GREY, "s"), [begins < 0 for begins in windows["begins"]]),
        ("new prompt", (colour, "o"), [begins >= 0 for begins in windows["begins"]]),
    ):
        names = ("begins", "all_attributes", "all_attributes_low", "all_attributes_high")
        begins, right, low, high = ([*compress(windows.get(name, []), within)] for name in names)
        frames = [at + frame for frame in begins]
        axes.fill_between(frames, low, high, color=style[0], alpha=0.18, linewidth=0)
        axes.plot(frames, right, color=style[0], linewidth=2, marker=style[1], markersize=4, label=label)
    axes.axvline(at, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
    axes.set(ylim=(0, 1.16), xlabel="frame of the stream at which the window begins (dashed: the change)")
    axes.set(ylabel="share of streams, all right", yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y", color=LIGHT)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    soon = number(metrics["prompt_change"].get(WITHIN_BLOCKS), 2)
    axes.set_title(f"A prompt that changes: right within {CHANGE_BLOCKS} blocks in {soon} of streams")
    return figure


def speed(metrics: Metrics) -> Figure:
    """Share of clips with all attributes right, against seconds per clip."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    points = []
    for arm in ("teacher", "undistilled", "init", "student"):
        values = arm_of(metrics, arm)
        seconds, score = finite(values.get("seconds_per_clip")), score_of(values, "all_attributes")
        if seconds is not None and seconds > 0 and score is not None:
            points.append((arm, seconds, score))
    places = spread([score for _, _, score in points], 0.075)  # one column of labels, right of every marker
    ranges = {arm: metrics[arm].get("seconds_range") or (seconds, seconds) for arm, seconds, _ in points}
    column = max((slowest for _, slowest in ranges.values()), default=1.0) * 1.3
    for (arm, seconds, score), place in zip(points, places, strict=True):
        colour, marker = LOOKS[arm]
        low, high = interval_of(metrics[arm], "all_attributes") or (score, score)
        axes.plot([seconds, seconds], [low, high], color=colour, linewidth=1.8, alpha=0.6)
        axes.plot(ranges[arm], [score, score], color=colour, linewidth=1.8, alpha=0.6)
        axes.plot([seconds, column], [score, place], color=LIGHT, linewidth=1, zorder=0)  # leads to the label
        axes.plot([seconds], [score], marker, color=colour, markersize=9)
        first = finite(metrics[arm].get("first_block_seconds"))
        label = TITLES[arm] + ("" if first is None else f", first block {first * 1000:,.0f} ms")
        axes.annotate(label, (column, place), (4, 0), textcoords="offset points", va="center", size=9,
                      color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    real = score_of(arm_of(metrics, "real"), "all_attributes")
    if real is not None:
        axes.axhline(real, color=LOOKS["real"][0], linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate("real clips", (0.5, real), (0, 4), xycoords=("axes fraction", "data"), ha="center",
                      textcoords="offset points", size=9)  # fmt: skip
    axes.set(ylim=(min([-0.06, *(place - 0.05 for place in places)]), 1.1), ylabel="all attributes right")
    axes.set_xlabel("seconds per clip, logarithmic (left is faster)")
    if points:
        axes.set_xscale("log")
        axes.set_xlim(min(s for _, s, _ in points) / 1.6, column * 5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(color=LIGHT)
    faster = finite(metrics.get("student_vs_teacher", {}).get("speedup"))
    axes.set_title("Quality against time" + (f": the student is {faster:.0f} times faster" if faster else ""))
    return figure


def relative_to_teacher(metrics: Metrics, names: Mapping[str, str], title: str) -> Figure:
    """Scores (key -> label) divided by the teacher's: one row per score, one marker with its interval per arm."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.subplots()
    arms = [arm for arm in TITLES if arm != "teacher" and arm in metrics]
    for place, arm in enumerate(arms):
        colour, marker = LOOKS[arm]
        for row, name in enumerate(names):
            unit = metrics["teacher"][name] or 1.0
            y = row + 0.2 * (place - (len(arms) - 1) / 2)
            low, high = metrics[arm]["intervals"][name]
            axes.plot([low / unit, high / unit], [y, y], color=colour, linewidth=1.6, alpha=0.7)
            axes.plot([metrics[arm][name] / unit], [y], marker, color=colour, label=TITLES[arm] if row == 0 else None)
    axes.axvline(1, color=LOOKS["teacher"][0], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(names)), list(names.values()))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=LIGHT)
    axes.set_xlabel("beside the teacher's (dashed), with 95 % interval over prompts")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(arms), frameon=False)
    axes.set_title(title, pad=34)
    return figure


def relative_drift(metrics: Metrics) -> Figure:
    """Scores of the long stream per window, divided by those of its first window."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.subplots()
    frames = metrics["window_frames"]
    for (name, values), style in zip(metrics["stream"]["by_window"].items(), ("-", "--", ":", "-."), strict=True):
        middles = [(index + 0.5) * frames for index in range(len(values))]
        shown = [value / (values[0] or 1.0) for value in values]
        axes.plot(middles, shown, color=LOOKS["student"][0], linestyle=style, marker=".", label=name.replace("_", " "))
    axes.axhline(1, color=LIGHT, linewidth=1, zorder=0)
    axes.set(xlabel="latent frame of the stream", ylabel="beside its first window's")
    axes.legend(frameon=False, ncols=2)
    axes.set_title("Drift: one long stream, window by window")
    return figure
