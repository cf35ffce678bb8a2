"""Score the samples: metrics.json, tables, plots, sheet and report.

Notable: floor and ceiling of every dimension come from the world itself, measured here and reported beside the
scores; a clip that is not finite counts as zero and is never dropped; intervals resample prompts, not clips;
teacher and student are compared on the same prompts and seeds.
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.errors import require
from filmstill.evaluate import faults
from filmstill.evaluate.dimensions import NAMES, SEMANTIC, Clips, scores, sharpness
from filmstill.evaluate.report import write_report
from filmstill.evaluate.requests import ARMS, LONG_ARM
from filmstill.evaluate.scores import AGGREGATES, aggregate, bootstrap_interval, normalise, paired_differences
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.models.codec import DctCodec
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import DIGITS, FPS, World
from filmstill.runtime import randomness
from filmstill.runtime.files import write_json, write_text
from filmstill.runtime.progress import progress
from filmstill.runtime.tables import read_table, write_table
from filmstill.runtime.tensor_files import load_tensors
from filmstill.worlds import digits
from filmstill.worlds.grammar import Attributes, parse_all
from filmstill.worlds.judge import all_right

RIGHT = ("object", "colour", "motion")
DETAILS = ("dimensions", "intervals")  # of an arm: too many numbers for a table of metrics


def evaluate(samples: Path, codec_file: Path, world: World, params: Evaluate, seed: int, out: Path) -> dict[str, Any]:
    """Read the samples artifact, write everything data/evaluate holds into `out`, return all that was measured."""
    codec = DctCodec.load(codec_file)
    manifest = read_table(samples / "manifest.parquet")
    by_arm = {arm: manifest[manifest["arm"] == arm] for arm in (*ARMS, LONG_ARM)}
    videos = {arm: load_videos(samples, rows, codec) for arm, rows in by_arm.items()}
    failed = read_table(samples / "failed.parquet")
    with progress("evaluate", len(ARMS) + 2, unit="part") as bar:
        bounds, scored = Bounds.measure(codec, world, params.references, seed), []
        bar.update()
        for arm in ARMS:
            scored.append(score_arm(by_arm[arm], videos[arm], failed, world, bounds))
            bar.update()
        table = pd.concat(scored)
        metrics = summarise(table, read_table(samples / "timing.parquet"), params, seed)
        add_diversity(metrics, by_arm, videos)
        drifts = drift(by_arm[LONG_ARM], videos[LONG_ARM], world, params)
        metrics["student"]["drift"] = drifts["all_attributes"].tolist()
        metrics["student"]["drift_of"] = {name: drifts[name].tolist() for name in RIGHT}
        metrics["bench"] = DIGITS
        metrics["world"] = {"floor": bounds.floor, "ceiling": bounds.ceiling}
        metrics["window_frames"] = params.window_frames
        metrics["clips"] = len(by_arm["student"])
        metrics["failed_clips"] = len(failed)
        write_tables(table, drifts, metrics, out)
        draw(by_arm["student"], videos, metrics, params, out)
        bar.update()
    return metrics


class Bounds:
    """Floor and ceiling of every dimension in this world, and the sharpness of its clips."""

    def __init__(self, floor: dict[str, float], ceiling: dict[str, float], sharpness_of_real: float) -> None:
        self.floor, self.ceiling, self.sharpness_of_real = floor, ceiling, sharpness_of_real

    @classmethod
    def measure(cls, codec: DctCodec, world: World, references: int, seed: int) -> "Bounds":
        """Ceiling: real clips through the codec. Floor: the same clips under other clips' prompts for what a prompt
        asks, frozen clips for motion's amount, and noise through the codec for the rest of quality."""
        clips = digits.draw(world, seed, "evaluate/references", 0, range(references))
        real = Clips.of(codec.decode(codec.encode(clips.video)))
        sharp = float(sharpness(real).mean())
        latents = codec.encode(clips.video)
        dice = randomness.generator(seed, "evaluate/nothing")
        nothing = Clips.of(codec.decode(torch.randn(latents.shape, generator=dice)))
        frozen = Clips.of(faults.freeze(real.video))
        shuffled = clips.attributes[1:] + clips.attributes[:1]
        means = [
            _means(scores(c, asked, world, sharp))
            for c, asked in (
                (real, clips.attributes),
                (nothing, clips.attributes),
                (real, shuffled),
                (frozen, clips.attributes),
            )
        ]
        ceiling, noise, swapped, still = means
        floor = {name: swapped[name] if name in SEMANTIC else noise[name] for name in NAMES}
        floor["dynamic_degree"] = still["dynamic_degree"]
        return cls(floor, ceiling, sharp)


def load_videos(samples: Path, rows: pd.DataFrame, codec: DctCodec) -> Tensor:
    """Decoded clips [N, F, 3, H, W] of manifest rows, in their order; those that are not finite become black."""
    shards = {shard: load_tensors(samples / shard)[0]["latents"] for shard in rows["shard"].unique()}
    latents = torch.stack([shards[row.shard][row.index_in_shard] for row in _indexed(rows)])
    finite = latents.isfinite().flatten(1).all(dim=1)
    video = codec.decode(torch.where(finite[:, None, None, None, None], latents, torch.zeros_like(latents)))
    return video * finite[:, None, None, None, None]


def score_arm(rows: pd.DataFrame, video: Tensor, failed: pd.DataFrame, world: World, bounds: Bounds) -> pd.DataFrame:
    """One row a clip: what was asked, what is right, every dimension normalised, and the aggregates.

    A failed clip scores 0 everywhere: its black stand-in is consistent, steady and smooth.
    """
    asked = _asked(rows)
    raw = pd.DataFrame({name: s.numpy() for name, s in _raw(video, asked, world, bounds).items()})
    normalised = normalise(raw[list(NAMES)], bounds.floor, bounds.ceiling)
    normalised[_is_failed(rows, failed)] = 0.0
    right = pd.DataFrame(all_right(video, asked, world).numpy(), columns=list(RIGHT)).astype(float)
    # `colour` and `motion` are names of a dimension and of what is right: the dimensions get a prefix here.
    named = normalised.add_prefix("n_")
    facts = rows[["arm", "prompt_id", "prompt", "seed"]].reset_index(drop=True)
    whole = right.min(axis=1).rename("all_attributes")
    return pd.concat([facts, right, whole, named, aggregate(normalised)], axis=1)


def summarise(table: pd.DataFrame, timing: pd.DataFrame, params: Evaluate, seed: int) -> dict[str, Any]:
    """What is measured without the videos."""
    clocks = timing.groupby("arm")[["seconds", "first_block_seconds", "evaluations_per_clip"]].mean().to_dict("index")
    metrics: dict[str, Any] = {}
    for arm, rows in table.groupby("arm", sort=False):
        columns = ["all_attributes", *AGGREGATES, *(f"n_{name}" for name in NAMES)]
        intervals = {c: bootstrap_interval(rows[c], rows["prompt_id"], params.resamples, seed) for c in columns}
        clock = clocks[arm]
        metrics[str(arm)] = {
            **{name: float(rows[name].mean()) for name in ("all_attributes", *RIGHT, *AGGREGATES)},
            "seconds_per_clip": clock["seconds"],
            "evaluations_per_clip": clock["evaluations_per_clip"],
            "first_block_seconds": clock["first_block_seconds"],
            "dimensions": {name: float(rows[f"n_{name}"].mean()) for name in NAMES},
            "intervals": {name.removeprefix("n_"): list(interval) for name, interval in intervals.items()},
        }
    metrics["student_vs_teacher"] = compare(table, metrics, params, seed)
    return metrics


def compare(table: pd.DataFrame, metrics: dict[str, Any], params: Evaluate, seed: int) -> dict[str, Any]:
    """The student against its teacher, clip by clip."""
    student, teacher = (table[table["arm"] == arm] for arm in ("student", "teacher"))
    compared: dict[str, Any] = {
        "speedup": metrics["teacher"]["seconds_per_clip"] / metrics["student"]["seconds_per_clip"]
    }
    score = metrics["teacher"]["all_attributes"]
    compared["all_attributes_ratio"] = metrics["student"]["all_attributes"] / score if score else None
    return compared | paired_differences(student, teacher, ("all_attributes", "total"), params.resamples, seed)


def add_diversity(metrics: dict[str, Any], by_arm: dict[str, pd.DataFrame], videos: dict[str, Tensor]) -> None:
    """Mean distance between clips of one prompt with different seeds, over that of real clips (1: as diverse)."""
    spread = {arm: _spread(by_arm[arm], videos[arm]) for arm in ARMS}
    for arm in ARMS:
        metrics[arm]["diversity"] = spread[arm] / spread["real"] if spread["real"] else None


def drift(rows: pd.DataFrame, video: Tensor, world: World, params: Evaluate) -> pd.DataFrame:
    """What is right in how many long streams, a window a row (`frame` is its end); a short last window is left out."""
    asked, frames = _asked(rows), video.shape[1]
    allowed = f"at most samples.long_frames ({frames})"
    require(params.window_frames <= frames, "evaluate.window_frames", params.window_frames, allowed)
    starts = range(0, video.shape[1] - params.window_frames + 1, params.window_frames)
    windows = []
    for start in starts:
        end = start + params.window_frames
        right = pd.DataFrame(all_right(video[:, start:end], asked, world, start).numpy(), columns=list(RIGHT))
        windows.append({"frame": end, "all_attributes": right.all(axis=1).mean(), **right.mean()})
    return pd.DataFrame(windows)


def write_tables(table: pd.DataFrame, drifts: pd.DataFrame, metrics: dict[str, Any], out: Path) -> None:
    """metrics.json (what `dvc metrics` compares), details.json, the tables a person opens and those DVC plots."""
    write_json(out / "metrics.json", {key: without_details(value) for key, value in metrics.items() if key != "world"})
    details = {arm: {name: metrics[arm][name] for name in DETAILS} for arm in ARMS}
    write_json(out / "details.json", {**details, "world": metrics["world"]})
    write_table(out / "per_video.parquet", table)
    by_prompt = table.groupby(["prompt_id", "prompt", "arm"], sort=True)[["all_attributes", *RIGHT, *AGGREGATES]].mean()
    write_text(out / "per_prompt.csv", by_prompt.reset_index().to_csv(index=False, float_format="%.4f"))
    long = [
        {"score": value, "dimension": f"{name}, {arm}"}  # DVC's bars know one label, not two
        for arm in ARMS
        for name, value in metrics[arm]["dimensions"].items()
    ]
    write_text(out / "scores.csv", pd.DataFrame(long).to_csv(index=False, float_format="%.6f"))
    drifts = drifts.assign(score=drifts["all_attributes"])  # what DVC plots, in either world
    write_text(out / "drift.csv", drifts.to_csv(index=False, float_format="%.6f"))


def without_details(value: Any) -> Any:
    return {name: part for name, part in value.items() if name not in DETAILS} if isinstance(value, dict) else value


def draw(rows: pd.DataFrame, videos: dict[str, Tensor], metrics: dict[str, Any], params: Evaluate, out: Path) -> None:
    """The side-by-side sheet of the first prompts of manifest rows (every arm has the same), then plots and report."""
    rows = rows.reset_index(drop=True)
    shown = rows.drop_duplicates("prompt_id").head(params.sheet_prompts).index.tolist()
    sheet = {arm: videos[arm][shown] for arm in ARMS}
    comparison_sheet(sheet, rows.loc[shown, "prompt"].tolist(), FPS[DIGITS], out / "sheet.gif", out / "sheet.png")
    write_report(metrics, out)


def _raw(video: Tensor, asked: list[Attributes], world: World, bounds: Bounds) -> dict[str, Tensor]:
    return scores(Clips.of(video), asked, world, bounds.sharpness_of_real)


def _means(raw: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(values.double().mean()) for name, values in raw.items()}


def _is_failed(rows: pd.DataFrame, failed: pd.DataFrame) -> list[bool]:
    lost = set(failed[["arm", "prompt_id", "seed"]].itertuples(index=False, name=None))
    return [clip in lost for clip in rows[["arm", "prompt_id", "seed"]].itertuples(index=False, name=None)]


def _asked(rows: pd.DataFrame) -> list[Attributes]:
    return parse_all(rows["prompt"].tolist(), EVAL_PROMPTS)


def _indexed(rows: pd.DataFrame) -> Any:
    """Rows as tuples; a column named `index` would hide the tuple's own method."""
    return rows.rename(columns={"index": "index_in_shard"}).itertuples()


def _spread(rows: pd.DataFrame, video: Tensor) -> float:
    """Mean root-mean-square distance over all pairs of clips that share a prompt."""
    distances = [
        (video[a] - video[b]).square().mean().sqrt()
        for places in rows.reset_index(drop=True).groupby("prompt_id").indices.values()
        for a, b in combinations(places, 2)
    ]
    return float(torch.stack(distances).mean()) if distances else 0.0
