"""The open world's measurements: what clips of every arm look like in numbers, and what they cost.

Nobody can say here what a clip should show, and no network of VBench's is part of this: these are statistics of
pixels, read from the clips as a viewer gets them. What they tell is whether the student's clips are as steady, moving,
sharp and rich in contrast as its teacher's on the same prompts and seeds, and whether a long stream stays so.

Source of temporal flickering: VBench (arXiv:2311.17982), which asks it of still scenes alone.
"""

from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.artifacts import SAMPLES
from filmstill.errors import FilmstillError
from filmstill.evaluate.evaluate import without_details
from filmstill.evaluate.open_report import write_open_report
from filmstill.evaluate.requests import LONG_ARM, short_arms
from filmstill.evaluate.scores import bootstrap_interval, paired_differences
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import OPEN, World
from filmstill.runtime.files import write_json, write_text
from filmstill.runtime.progress import progress
from filmstill.runtime.tables import read_table, write_table

STATISTICS = ("temporal_flickering", "motion", "sharpness", "contrast")
SHEET_HEIGHT, SHEET_FPS = 120, 8  # pixels of a clip on the sheet; frames a second there
CLOCKS = ("seconds", "network_seconds", "first_block_seconds", "evaluations_per_clip")


def statistics(video: Tensor) -> dict[str, float]:
    """Of one clip [F, 3, H, W] in [0, 1], at least two frames; all in units of white (1) less black (0)."""
    luma = video.mean(dim=1)
    change = video.diff(dim=0).abs().mean().item()
    coarse = F.avg_pool2d(luma[:, None], 8, ceil_mode=True)[:, 0]  # grain does not move
    return {
        "temporal_flickering": 1 - change,
        "motion": coarse.diff(dim=0).abs().mean().item(),
        # Squares: the steps that an edge is blurred into sum to the edge.
        "sharpness": (luma.diff(dim=-1).square().mean() + luma.diff(dim=-2).square().mean()).sqrt().item(),
        "contrast": luma.flatten(1).std(dim=1).mean().item(),
    }


def evaluate_open(samples: Path, world: World, params: Evaluate, seed: int, out: Path) -> dict[str, Any]:
    """Read the samples artifact, write everything data/evaluate holds into `out`, return all that was measured."""
    manifest, timing = read_table(samples / "manifest.parquet"), read_table(samples / "timing.parquet")
    rows = []
    with progress("evaluate", len(manifest), unit="clip") as bar:
        for clip in manifest[["arm", "prompt_id", "prompt", "seed", "video"]].to_dict("records"):
            pieces = windows(read_video(samples / clip.pop("video")), clip["arm"], params)
            rows += [{**clip, "window": number, **statistics(piece)} for number, piece in enumerate(pieces)]
            bar.update()
    failed = read_table(samples / "failed.parquet")
    table = without(pd.DataFrame(rows), failed)
    metrics = summarise(table, timing, world, params, seed)
    metrics["failed_clips"] = len(failed)
    write_tables(table, metrics, out)
    videos, prompts = _shown(samples, manifest, world, params)
    comparison_sheet(videos, prompts, SHEET_FPS, out / "sheet.gif", out / "sheet.png")
    write_open_report(metrics, out)
    return metrics


def without(table: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """The prompts and seeds whose clips are finite in every arm, so that arms stay comparable; a long stream by itself.

    The grey stand-in of a failed clip would be the steadiest of all. Failed ones are counted.
    """

    def clips(rows: pd.DataFrame) -> pd.MultiIndex:
        long = rows["arm"] == LONG_ARM
        return pd.MultiIndex.from_frame(rows[["prompt_id", "seed"]].assign(long=long))

    left = table[~clips(table).isin(clips(failed))]
    for long, kind in ((False, "clip"), (True, "long stream")):
        if ((table["arm"] == LONG_ARM) == long).any() and not ((left["arm"] == LONG_ARM) == long).any():
            raise FilmstillError(f"{SAMPLES}: no {kind} is finite in every arm; look at the weights and their curves")
    return left


def read_video(path: Path) -> Tensor:
    """[F, 3, H, W] in [0, 1] of an mp4."""
    return torch.from_numpy(iio.imread(path, plugin="pyav")).movedim(-1, 1).float() / 255


def windows(video: Tensor, arm: str, params: Evaluate) -> list[Tensor]:
    """A long stream in windows of `params.window_frames` latent frames, a stump left out; any other clip whole."""
    size = 4 * params.window_frames
    return [piece for piece in video.split(size) if len(piece) > size / 2] if arm == LONG_ARM else [video]


def summarise(table: pd.DataFrame, timing: pd.DataFrame, world: World, params: Evaluate, seed: int) -> dict[str, Any]:
    """What is measured without the videos: statistics with intervals, seconds and frames a second of every arm."""
    clocks = timing.groupby("arm")[list(CLOCKS)].mean().to_dict("index")
    metrics: dict[str, Any] = {"bench": OPEN, "window_frames": params.window_frames}
    pixel_frames = 1 + 4 * (world.frames - 1)
    for arm in short_arms(world):
        rows, clock = table[table["arm"] == arm], clocks[arm]
        metrics[arm] = {
            **{name: float(rows[name].mean()) for name in STATISTICS},
            "seconds_per_clip": clock["seconds"],
            "network_seconds_per_clip": clock["network_seconds"],
            "frames_per_second": pixel_frames / clock["seconds"],
            "evaluations_per_clip": clock["evaluations_per_clip"],
            "first_block_seconds": clock["first_block_seconds"],
            "intervals": {
                name: list(bootstrap_interval(rows[name], rows["prompt_id"], params.resamples, seed))
                for name in STATISTICS
            },
        }
    metrics["clips"] = int((table["arm"] == "student").sum())
    long = table[table["arm"] == LONG_ARM].groupby("window")[list(STATISTICS)].mean()
    metrics["student"]["drift_of"] = {name: long[name].tolist() for name in STATISTICS}
    metrics["student_vs_teacher"] = compare(table, metrics, params, seed)
    return metrics


def compare(table: pd.DataFrame, metrics: dict[str, Any], params: Evaluate, seed: int) -> dict[str, Any]:
    """The student against its teacher, clip by clip."""
    student, teacher = (table[table["arm"] == arm] for arm in ("student", "teacher"))
    speedup = metrics["teacher"]["seconds_per_clip"] / metrics["student"]["seconds_per_clip"]
    return {"speedup": speedup, **paired_differences(student, teacher, STATISTICS, params.resamples, seed)}


def write_tables(table: pd.DataFrame, metrics: dict[str, Any], out: Path) -> None:
    """metrics.json, details.json, the tables a person opens and those DVC plots, as in the world of digits."""
    arms = [name for name, value in metrics.items() if isinstance(value, dict) and "intervals" in value]
    write_json(out / "metrics.json", {name: without_details(value) for name, value in metrics.items()})
    write_json(out / "details.json", {arm: {"intervals": metrics[arm]["intervals"]} for arm in arms})
    write_table(out / "per_video.parquet", table)
    by_prompt = table.groupby(["prompt_id", "prompt", "arm"], sort=True)[list(STATISTICS)].mean()
    write_text(out / "per_prompt.csv", by_prompt.reset_index().to_csv(index=False, float_format="%.6f"))
    scores = [{"score": metrics[arm][name], "dimension": f"{name}, {arm}"} for arm in arms for name in STATISTICS]
    write_text(out / "scores.csv", pd.DataFrame(scores).to_csv(index=False, float_format="%.6f"))
    drift = pd.DataFrame(metrics["student"]["drift_of"])
    drift.insert(0, "frame", 4 * metrics["window_frames"] * (drift.index + 1))
    drift["score"] = drift["temporal_flickering"]  # what DVC plots, in either world
    write_text(out / "drift.csv", drift.to_csv(index=False, float_format="%.6f"))


def _shown(
    samples: Path, manifest: pd.DataFrame, world: World, params: Evaluate
) -> tuple[dict[str, Tensor], list[str]]:
    """Clips of the first prompts by arm, small enough for the sheet, and the prompts."""
    first = manifest[manifest["arm"] == "student"].drop_duplicates("prompt_id").head(params.sheet_prompts)
    videos = {}
    for arm in short_arms(world):
        of_arm = manifest[manifest["arm"] == arm].drop_duplicates("prompt_id").head(params.sheet_prompts)
        videos[arm] = torch.stack([_small(read_video(samples / video), world.fps) for video in of_arm["video"]])
    return videos, first["prompt"].tolist()


def _small(video: Tensor, fps: int) -> Tensor:
    fewer = video[:: max(1, fps // SHEET_FPS)]
    if (height := video.shape[-2]) <= SHEET_HEIGHT:
        return fewer
    return F.interpolate(fewer, (SHEET_HEIGHT, round(video.shape[-1] * SHEET_HEIGHT / height)), mode="area")
