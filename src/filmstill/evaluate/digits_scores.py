"""Scores of digits-bench: what is right in each clip, and the dimensions normalised, weighed and summed up.

VBench's aggregation: n = (x - floor) / (ceiling - floor), not clipped; quality and semantic are (weighted) means of
their dimensions; total = (4*quality + semantic) / 5. Floor and ceiling come from the world itself and are measured
in the same run. A clip that is not finite scores 0 and is never dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.errors import FilmstillError, require
from filmstill.evaluate import faults
from filmstill.evaluate.bench import DIMENSION, Measurement, SampledClips
from filmstill.evaluate.dimensions import NAMES, QUALITY, SEMANTIC, TrackedClips, scores, sharpness
from filmstill.evaluate.requests import ARMS, LONG_ARM
from filmstill.evaluate.results_table import ATTRIBUTES
from filmstill.models.codec import DctCodec
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.runtime.progress import progress
from filmstill.runtime.tensor_files import load_tensors
from filmstill.worlds import digits
from filmstill.worlds.grammar import Attributes, parse_all
from filmstill.worlds.judge import all_right

RIGHT = tuple(ATTRIBUTES)  # columns: whether digit, colour and motion are right
AGGREGATES = ("quality", "semantic", "total")


def measure(samples: SampledClips, world: World, params: Evaluate, seed: int) -> Measurement:
    """Decode the latents of every arm and score its clips."""
    codec = DctCodec.load(samples.codec)
    rows = {arm: samples.of_arm(arm) for arm in (*ARMS, LONG_ARM)}
    videos = {arm: load_videos(samples.folder, rows[arm], codec) for arm in rows}
    with progress("evaluate", len(ARMS) + 2, unit="part") as bar:
        bounds, scored = Bounds.measure(codec, world, params.references, seed), []
        bar.update()
        for arm in ARMS:
            scored.append(score_arm(rows[arm], videos[arm], samples.failed, world, bounds))
            bar.update()
        drift = score_windows(rows[LONG_ARM], videos[LONG_ARM], world, params)
        bar.update()
    shown = samples.for_sheet("student", params.sheet_prompts).index.tolist()
    return Measurement(
        clips=pd.concat(scored),
        drift=drift,
        sheet={arm: videos[arm][shown] for arm in ARMS},
        sheet_fps=world.fps,
        pixel_frames=world.frames,
        diversity=diversity(rows, videos),
        details={"world": {"floor": bounds.floor, "ceiling": bounds.ceiling}},
    )


@dataclass(frozen=True)
class Bounds:
    """Floor and ceiling of every dimension in this world, and the mean sharpness of its clips."""

    floor: dict[str, float]
    ceiling: dict[str, float]
    sharpness_of_real: float

    @classmethod
    def measure(cls, codec: DctCodec, world: World, references: int, seed: int) -> "Bounds":
        """Measure them with `references` drawn clips.

        Ceiling: real clips through the codec. Floor: the same clips under other clips' prompts (semantic dimensions),
        frozen clips (dynamic degree), and noise through the codec (the other quality dimensions).
        """
        drawn = digits.draw(world, seed, "evaluate/references", 0, range(references))
        latents = codec.encode(drawn.video)
        real = TrackedClips.of(codec.decode(latents))
        dice = randomness.generator(seed, "evaluate/nothing")
        noise = TrackedClips.of(codec.decode(torch.randn(latents.shape, generator=dice)))
        frozen = TrackedClips.of(faults.freeze(real.video))
        swapped = drawn.attributes[1:] + drawn.attributes[:1]
        sharp = float(sharpness(real).mean())

        def means(clips: TrackedClips, attributes: list[Attributes]) -> dict[str, float]:
            raw = scores(clips, attributes, world, sharp)
            return {name: float(values.double().mean()) for name, values in raw.items()}

        of_noise, of_swapped = means(noise, drawn.attributes), means(real, swapped)
        floor = {name: of_swapped[name] if name in SEMANTIC else of_noise[name] for name in NAMES}
        floor["dynamic_degree"] = means(frozen, drawn.attributes)["dynamic_degree"]
        return cls(floor, means(real, drawn.attributes), sharp)


def load_videos(folder: Path, rows: pd.DataFrame, codec: DctCodec) -> Tensor:
    """Decoded clips [N, F, 3, H, W] of manifest rows, in their order; a clip that is not finite becomes black."""
    shards = {shard: load_tensors(folder / shard)[0]["latents"] for shard in rows["shard"].unique()}
    latents = torch.stack([shards[shard][index] for shard, index in zip(rows["shard"], rows["index"], strict=True)])
    finite = latents.isfinite().flatten(1).all(dim=1)
    video = codec.decode(torch.where(finite[:, None, None, None, None], latents, torch.zeros_like(latents)))
    return video * finite[:, None, None, None, None]


def score_arm(rows: pd.DataFrame, video: Tensor, failed: pd.DataFrame, world: World, bounds: Bounds) -> pd.DataFrame:
    """One row per clip: its prompt and seed, what is right, the aggregates and every normalised dimension.

    A failed clip scores 0 in every dimension: its black stand-in is consistent, steady and smooth.
    """
    attributes = _attributes(rows)
    measured = scores(TrackedClips.of(video), attributes, world, bounds.sharpness_of_real)
    raw = pd.DataFrame({name: values.numpy() for name, values in measured.items()})
    normalised = normalise(raw[list(NAMES)], bounds.floor, bounds.ceiling)
    normalised[_is_failed(rows, failed)] = 0.0
    right = pd.DataFrame(all_right(video, attributes, world).numpy(), columns=list(RIGHT)).astype(float)
    all_attributes = right.min(axis=1).rename("all_attributes")
    # `colour` and `motion` are names of a dimension and of what is right, hence the prefix.
    dimensions = normalised.add_prefix(DIMENSION)
    clips = rows[["arm", "prompt_id", "prompt", "seed"]].reset_index(drop=True)
    return pd.concat([clips, right, all_attributes, dimensions, aggregate(normalised)], axis=1)


def normalise(raw: pd.DataFrame, floor: Mapping[str, float], ceiling: Mapping[str, float]) -> pd.DataFrame:
    """n of every dimension's column. Raises FilmstillError for a dimension whose ceiling is not above its floor."""
    for name in raw.columns:
        if not ceiling[name] > floor[name]:
            raise FilmstillError(
                f"{name}: ceiling {ceiling[name]:g} is not above floor {floor[name]:g}: real clips of this world "
                "score no higher than its faults; raise world.amplitude or lower world.period"
            )
    return pd.DataFrame({name: (raw[name] - floor[name]) / (ceiling[name] - floor[name]) for name in raw.columns})


def aggregate(normalised: pd.DataFrame) -> pd.DataFrame:
    """Columns quality, semantic and total, one row per clip; linear, so the mean of totals is the total of means."""
    weights = pd.Series(QUALITY)
    quality = (normalised[list(QUALITY)] * weights).sum(axis=1) / weights.sum()
    semantic = normalised[list(SEMANTIC)].mean(axis=1)
    return pd.DataFrame({"quality": quality, "semantic": semantic, "total": (4 * quality + semantic) / 5})


def score_windows(rows: pd.DataFrame, video: Tensor, world: World, params: Evaluate) -> pd.DataFrame:
    """Share of the long streams in which each attribute is right, one row per window of `params.window_frames`.

    A shorter last window is left out. Raises FilmstillError for a window that is longer than the stream.
    """
    attributes, frames = _attributes(rows), video.shape[1]
    allowed = f"at most samples.long_frames ({frames})"
    require(params.window_frames <= frames, "evaluate.window_frames", params.window_frames, allowed)
    windows = []
    for start in range(0, frames - params.window_frames + 1, params.window_frames):
        end = start + params.window_frames
        right = pd.DataFrame(all_right(video[:, start:end], attributes, world, start).numpy(), columns=list(RIGHT))
        windows.append({"frame": end, "all_attributes": right.all(axis=1).mean(), **right.mean()})
    return pd.DataFrame(windows)


def diversity(rows: dict[str, pd.DataFrame], videos: dict[str, Tensor]) -> dict[str, float | None]:
    """Mean distance between clips of one prompt with different seeds, relative to real clips (1: as diverse)."""
    distances = {arm: _distance(rows[arm], videos[arm]) for arm in ARMS}
    real = distances["real"]
    return {arm: distance / real if real else None for arm, distance in distances.items()}


def _distance(rows: pd.DataFrame, video: Tensor) -> float:
    """Mean root-mean-square distance over all pairs of clips that share a prompt."""
    distances = [
        (video[a] - video[b]).square().mean().sqrt()
        for places in rows.groupby("prompt_id").indices.values()
        for a, b in combinations(places, 2)
    ]
    return float(torch.stack(distances).mean()) if distances else 0.0


def _is_failed(rows: pd.DataFrame, failed: pd.DataFrame) -> list[bool]:
    lost = set(failed[["arm", "prompt_id", "seed"]].itertuples(index=False, name=None))
    return [clip in lost for clip in rows[["arm", "prompt_id", "seed"]].itertuples(index=False, name=None)]


def _attributes(rows: pd.DataFrame) -> list[Attributes]:
    """The attributes that the prompts of manifest rows name."""
    return parse_all(rows["prompt"].tolist(), EVAL_PROMPTS)
