"""The evaluation of a run by any bench: measure the clips, then write metrics.json, tables, sheet, plots and page.

Intervals resample prompts, not clips; student and teacher are compared on the same prompts and seeds.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from filmstill.evaluate.bench import DIMENSION, HIGH, LOW, Bench, Measurement, SampledClips
from filmstill.evaluate.intervals import bootstrap_interval, paired_differences, ratio_of_means
from filmstill.evaluate.metrics import CHANGED_SHEET, WITHIN_BLOCKS, Metrics, finite, number, score_of
from filmstill.evaluate.page import write_report
from filmstill.evaluate.pixel_statistics import PIXEL_STATISTICS
from filmstill.evaluate.requests import LONG_ARM, TIMED_AS
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.evaluate.stream_sheet import stream_sheet
from filmstill.evaluate.symbols_bench import SYMBOLS_BENCH
from filmstill.params.evaluate import CHANGE_BLOCKS, Evaluate
from filmstill.params.world import World
from filmstill.prompts.eval_groups import MAIN
from filmstill.runtime.files import write_json, write_text
from filmstill.runtime.tables import write_table

BENCHES = {bench.name: bench for bench in (SYMBOLS_BENCH, PIXEL_STATISTICS)}  # each is named by its world
CLOCKS = ("seconds", "network_seconds", "first_block_seconds", "evaluations_per_clip")
WINDOWS_AFTER_CHANGE = 3  # that the sheet of changing prompts shows without a gap
DETAILS = ("dimensions", "intervals")  # of an arm: too many numbers for metrics.json, which `dvc metrics` compares


def evaluate(bench: Bench, samples: SampledClips, world: World, params: Evaluate, seed: int, out: Path) -> Metrics:
    """Measure `samples`, write the contents of data/evaluate into `out` and return all metrics."""
    measured = bench.measure(samples, world, params, seed)
    metrics = summarise(bench, measured, samples, params, seed)
    write_tables(bench, measured, metrics, out)
    draw_pictures(bench, measured, metrics, samples, params, out)
    write_report(bench, metrics, out)
    return metrics


def summarise(bench: Bench, measured: Measurement, samples: SampledClips, params: Evaluate, seed: int) -> Metrics:
    """Means, intervals and costs per arm, the long stream by window, and the student compared with its teacher."""
    clips = measured.clips[measured.clips["group"] == MAIN]
    clocks = samples.timing.groupby("arm")[list(CLOCKS)].median().to_dict("index")
    metrics: Metrics = {
        "bench": bench.name,
        "window_frames": params.window_frames,
        "clips": int((clips["arm"] == "student").sum()),
        "failed_clips": len(samples.failed),
        **measured.details,
    }
    for arm in bench.table.arms:
        timed = TIMED_AS.get(arm, arm)
        rounds = samples.timing.loc[samples.timing["arm"] == timed, "seconds"]
        costs = costs_of(clocks[timed], measured.pixel_frames)
        metrics[arm] = {
            **summarise_arm(bench, clips[clips["arm"] == arm], params, seed),
            **{name: costs[name] for name in bench.costs},
            "seconds_range": [float(rounds.min()), float(rounds.max())],
        }
    metrics["stream"] = {"by_window": by_window(measured.drift)}
    metrics["student_vs_teacher"] = {
        **speedup(samples.timing),
        **compare(bench, clips, params, seed),
    }
    for name, further in measured.metrics.items():
        metrics[name] = {**metrics.get(name, {}), **further}
    return metrics


def summarise_arm(bench: Bench, clips: pd.DataFrame, params: Evaluate, seed: int) -> Metrics:
    """Mean of every score and dimension, and their intervals."""
    columns = {name: name for name in bench.with_interval} | {name: DIMENSION + name for name in bench.dimensions}
    summary: Metrics = {name: float(clips[name].mean()) for name in bench.scores}
    if bench.dimensions:
        summary["dimensions"] = {name: float(clips[DIMENSION + name].mean()) for name in bench.dimensions}
    summary["intervals"] = {
        name: list(bootstrap_interval(clips[column], clips["prompt_id"], params.resamples, seed))
        for name, column in columns.items()
    }
    return summary


def by_window(drift: pd.DataFrame) -> dict[str, list[float]]:
    """Every score of the long stream's windows from frame 0 on, without intervals."""
    names = [name for name in drift.columns if name not in ("offset", "frame") and not name.endswith((LOW, HIGH))]
    return {name: drift.loc[drift["offset"] == 0, name].tolist() for name in names}


def costs_of(clock: dict[Hashable, float], pixel_frames: int) -> dict[str, float]:
    """Times and speeds of an arm from the medians of its timing; a bench reports some of them."""
    return {
        "seconds_per_clip": clock["seconds"],
        "network_seconds_per_clip": clock["network_seconds"],
        "frames_per_second": pixel_frames / clock["seconds"],
        "first_block_seconds": clock["first_block_seconds"],
        "evaluations_per_clip": clock["evaluations_per_clip"],
    }


def speedup(timing: pd.DataFrame) -> dict[str, Any]:
    """How many times faster the student is than its teacher: median over the rounds, and the least and the most."""
    seconds = timing.pivot(index="round", columns="arm", values="seconds")
    ratios = seconds["teacher"] / seconds["student"]
    return {"speedup": float(ratios.median()), "speedup_range": [float(ratios.min()), float(ratios.max())]}


def compare(bench: Bench, clips: pd.DataFrame, params: Evaluate, seed: int) -> dict[str, Any]:
    """The student against its teacher: ratio of main scores, and differences paired by prompt and seed."""
    compared: dict[str, Any] = {}
    student, teacher = (clips[clips["arm"] == arm] for arm in ("student", "teacher"))
    if main := bench.main_score:
        above, below = (arm.groupby("prompt_id")[main].mean() for arm in (student, teacher))
        ratio, interval = ratio_of_means(above, below, params.resamples, seed)
        compared |= {f"{main}_ratio": ratio, f"{main}_ratio_interval": interval}
    return compared | paired_differences(student, teacher, bench.compared, params.resamples, seed)


def write_tables(bench: Bench, measured: Measurement, metrics: Metrics, out: Path) -> None:
    """Write metrics.json, details.json, per_video.parquet, per_prompt.csv, and the tables that DVC plots."""
    arms, scores = bench.table.arms, list(bench.scores)
    shown = {name: _without_details(value) for name, value in metrics.items() if name not in measured.details}
    write_json(out / "metrics.json", shown)
    details = {arm: {name: metrics[arm][name] for name in DETAILS if name in metrics[arm]} for arm in arms}
    write_json(out / "details.json", {**details, **measured.details})
    write_table(out / "per_video.parquet", measured.clips)
    per_prompt = measured.clips.groupby(["group", "prompt_id", "prompt", "arm"], sort=True)[scores].mean().reset_index()
    _write_csv(out / "per_prompt.csv", per_prompt, bench.prompt_digits)
    means = [
        {"score": score_of(metrics[arm], name), "dimension": f"{name}, {arm}"}  # DVC's bar plot has one label per bar
        for arm in arms
        for name in bench.dimensions or bench.scores
    ]
    _write_csv(out / "scores.csv", pd.DataFrame(means))
    plotted = measured.drift[bench.main_score or bench.scores[0]]
    _write_csv(out / "drift.csv", measured.drift.assign(score=plotted))  # DVC plots `score`, whatever the bench


def draw_pictures(
    bench: Bench, measured: Measurement, metrics: Metrics, samples: SampledClips, params: Evaluate, out: Path
) -> None:
    """Write the sheets of all arms, of the long stream and of changing prompts, each as a GIF and as a film strip.

    Arms are titled with their main score, streams with that of their worst window or of the change: pictures of a few
    clips may flatter.
    """
    prompts = samples.for_sheet("student", params.sheet_prompts)["prompt"].tolist()
    scores = {arm: number(metrics[arm][bench.main_score], 2) for arm in measured.sheet} if bench.main_score else {}
    comparison_sheet(measured.sheet, prompts, measured.sheet_fps, out / "sheet.gif", out / "sheet.png", scores)
    prompts = samples.for_sheet(LONG_ARM, len(measured.streams))["prompt"].tolist()
    gif, png = out / "stream.gif", out / "stream.png"
    worst = finite(metrics["stream"].get("worst_window"))
    score = "" if worst is None else f"All right in the worst window: {worst:.2f}."
    stream_sheet(measured.streams, prompts, measured.sheet_fps, gif, png, measured.stream_window, score)
    if changed := measured.changed:
        soon = number(metrics["prompt_change"][WITHIN_BLOCKS], 2)
        score = f"Change at {changed.change_frame}; right within {CHANGE_BLOCKS} blocks: {soon}."
        gif, png = (out / f"plots/{CHANGED_SHEET}.{kind}" for kind in ("gif", "png"))
        window = measured.stream_window
        beginning = changed.change_frame // window + WINDOWS_AFTER_CHANGE
        stream_sheet(changed.video, changed.captions, measured.sheet_fps, gif, png, window, score, beginning)


def _write_csv(path: Path, table: pd.DataFrame, digits: int = 6) -> None:
    write_text(path, table.to_csv(index=False, float_format=f"%.{digits}f"))


def _without_details(value: Any) -> Any:
    return {name: part for name, part in value.items() if name not in DETAILS} if isinstance(value, dict) else value
