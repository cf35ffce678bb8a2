"""The open world's report: two plots and one page that opens offline, drawn from the metrics alone."""

import html
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from filmstill.evaluate.report import CSS, DPI, LIGHT, LOOKS, STYLE, image, table_of
from filmstill.evaluate.results_table import TITLES, closing_rows, columns, drift_line, headline, number, titles
from filmstill.runtime.files import replacing, write_text

FIRST_LINE = "pixel statistics of clips; no network judged them, and they are not comparable with VBench"
NAMES = {
    "temporal_flickering": "steadiness: 1 less the mean change of a pixel from frame to frame",
    "motion": "motion: mean change of 8 × 8 pixels from frame to frame",
    "sharpness": "sharpness: root mean square step of luma from pixel to pixel",
    "contrast": "contrast: standard deviation of luma in a frame",
}


def write_open_report(metrics: dict[str, Any], out: Path) -> None:
    """Write plots/*.png and report.html into `out`; the page shows `out`/sheet.gif when it is there."""
    for name, draw in (("statistics", statistics_plot), ("drift", drift_plot)):
        with matplotlib.rc_context(STYLE), replacing(out / "plots" / f"{name}.png") as temporary:
            draw(metrics).savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    write_text(out / "report.html", page(metrics, out))


def statistics_plot(metrics: dict[str, Any]) -> Figure:
    """Each statistic beside the teacher's (1), a marker an arm, with its interval."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.subplots()
    arms = [arm for arm in titles(metrics) if arm != "teacher"]
    for place, arm in enumerate(arms):
        colour, marker = LOOKS[arm]
        for row, name in enumerate(NAMES):
            unit = metrics["teacher"][name] or 1.0
            y = row + 0.2 * (place - (len(arms) - 1) / 2)
            low, high = metrics[arm]["intervals"][name]
            axes.plot([low / unit, high / unit], [y, y], color=colour, linewidth=1.6, alpha=0.7)
            axes.plot([metrics[arm][name] / unit], [y], marker, color=colour, label=TITLES[arm] if row == 0 else None)
    axes.axvline(1, color=LOOKS["teacher"][0], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(NAMES)), [title.partition(":")[0] for title in NAMES.values()])
    axes.set_ylim(len(NAMES) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=LIGHT)
    axes.set_xlabel("beside the teacher's (dashed), with 95 % interval over prompts")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(arms), frameon=False)
    axes.set_title("Statistics of clips", pad=34)
    return figure


def drift_plot(metrics: dict[str, Any]) -> Figure:
    """The long stream's statistics by window, beside its first window's."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.subplots()
    frames = metrics["window_frames"]
    for (name, values), style in zip(metrics["student"]["drift_of"].items(), ("-", "--", ":", "-."), strict=True):
        middles = [(index + 0.5) * frames for index in range(len(values))]
        shown = [value / (values[0] or 1.0) for value in values]
        axes.plot(middles, shown, color=LOOKS["student"][0], linestyle=style, marker=".", label=name.replace("_", " "))
    axes.axhline(1, color=LIGHT, linewidth=1, zorder=0)
    axes.set(xlabel="latent frame of the stream", ylabel="beside its first window's")
    axes.legend(frameon=False, ncols=2)
    axes.set_title("Drift: one long stream, window by window")
    return figure


def page(metrics: dict[str, Any], out: Path) -> str:
    """report.html: the pictures in `out` and every number of `metrics` worth reading, in one file."""
    against, marked = metrics["student_vs_teacher"], list(titles(metrics)).index("student")
    differences = []
    for name, title in NAMES.items():
        low, high = against[f"{name}_interval"]
        difference = number(against[f"{name}_difference"], 4)
        differences.append([title, difference, f"{number(low, 4)} to {number(high, 4)}"])
    sections = [
        table_of(["arm", *columns(metrics)], closing_rows(metrics), marked),
        "<h2>Side by side</h2><p>Same prompts, same seeds, every arm.</p>" + image(out / "sheet.gif", "clips by arm"),
        "<h2>Student less teacher</h2><p>Paired by prompt and seed, 95 % intervals over prompts.</p>",
        table_of(["statistic", "difference", "interval"], differences),
        image(out / "plots/statistics.png", "statistics beside the teacher's, by arm"),
        f"<h2>Drift</h2><p>{html.escape(drift_line(metrics))}</p>",
        image(out / "plots/drift.png", "statistics of a long stream by window"),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>filmstill: teacher to student</title>'
        f'<style>{CSS}</style></head>\n<body>\n<p class="first">{FIRST_LINE}</p>\n'
        f'<h1>Teacher to streaming student</h1>\n<p class="lead">{html.escape(headline(metrics))}</p>\n'
        f'<p class="note">{metrics["clips"]} clips an arm, {metrics["failed_clips"]} failed.</p>\n'
        + "\n".join(sections)
        + "\n</body></html>\n"
    )
