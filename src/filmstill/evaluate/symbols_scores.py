"""Scores of symbols-bench: what is right in each clip, and the dimensions normalised, weighed and summed up.

VBench's aggregation: n = (x - floor) / (ceiling - floor), not clipped; quality and semantic are (weighted) means of
their dimensions; total = (4*quality + semantic) / 5. Floor and ceiling come from the world itself and are measured
in the same run. Only clips of the group main have dimensions. A clip that is not finite scores 0 and is never dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import pandas as pd
import torch

from filmstill.errors import FilmstillError
from filmstill.evaluate import faults
from filmstill.evaluate.bench import DIMENSION, Measurement, SampledClips
from filmstill.evaluate.dimensions import NAMES, QUALITY, SEMANTIC, TrackedClips, scores
from filmstill.evaluate.drift import score_windows, stream_metrics, window_means
from filmstill.evaluate.given_pictures import picture_metrics
from filmstill.evaluate.intervals import bootstrap_interval, ratio_of_means
from filmstill.evaluate.judged_clips import DecodedClips
from filmstill.evaluate.metrics import Metrics
from filmstill.evaluate.open_prompts import entropy_metrics
from filmstill.evaluate.prompt_changes import measure_changes
from filmstill.evaluate.requests import ARMS, LONG_ARM
from filmstill.evaluate.stream_sheet import GIF_PROMPTS
from filmstill.models.codec import DctCodec
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import World
from filmstill.prompts.eval_groups import HELD_OUT, OPEN_ENDED
from filmstill.runtime import randomness
from filmstill.runtime.progress import progress
from filmstill.worlds import symbols
from filmstill.worlds.grammar import COLOURS, Attributes
from filmstill.worlds.judge import Frames, judge_frames, look_at

AGGREGATES = ("quality", "semantic", "total")


def measure(samples: SampledClips, world: World, params: Evaluate, seed: int) -> Measurement:
    """Decode the latents of every arm and score its clips, then long streams, given pictures and changing prompts."""
    codec = DctCodec.load(samples.codec)
    shown = samples.for_sheet("student", params.sheet_prompts).index.tolist()
    scored, sheet = [], {}
    with progress("evaluate", len(ARMS) + 4, unit="part") as bar:
        bounds = Bounds.measure(codec, world, params.references, seed)
        bar.update()
        for arm in ARMS:
            clips = DecodedClips.of(samples, arm, codec)
            scored.append(score_arm(clips, world, bounds))
            sheet[arm] = clips.video[shown]
            bar.update()
        streams = DecodedClips.of(samples, LONG_ARM, codec)
        windows = score_windows(streams, world, params.window_frames, samples.student)
        bar.update()
        picture = picture_metrics(samples, codec, world, params, seed)
        bar.update()
        changes = measure_changes(samples, codec, world, params, seed, GIF_PROMPTS)
        bar.update()
    table, means = pd.concat(scored, ignore_index=True), window_means(windows, params, seed)
    details = {"world": {"floor": bounds.floor, "ceiling": bounds.ceiling}, "windows": means.to_dict("list")}
    return Measurement(
        clips=table,
        drift=means,
        sheet=sheet,
        sheet_fps=world.fps,
        streams=streams.video[samples.for_sheet(LONG_ARM, GIF_PROMPTS).index.tolist()],
        stream_window=params.window_frames,
        pixel_frames=world.frames,
        metrics={
            **group_metrics(table, params, seed),
            "stream": stream_metrics(windows, means, params, seed),
            **picture,
            **({"prompt_change": changes.metrics} if changes else {}),
        },
        details={**details, **(changes.details if changes else {})},
        changed=changes.sheet if changes else None,
    )


@dataclass(frozen=True)
class Bounds:
    """Floor and ceiling of every dimension in this world."""

    floor: dict[str, float]
    ceiling: dict[str, float]

    @classmethod
    def measure(cls, codec: DctCodec, world: World, references: int, seed: int) -> "Bounds":
        """Measure them with `references` drawn clips.

        Ceiling: real clips through the codec. Floor: the same clips under other clips' prompts (semantic dimensions),
        frozen clips (dynamic degree), and noise through the codec (the other quality dimensions).
        """
        drawn = symbols.draw(world, seed, "evaluate/references", 0, range(references))
        latents = codec.encode(drawn.video)
        real = look_at(codec.decode(latents))
        dice = randomness.generator(seed, "evaluate/nothing")
        noise = look_at(codec.decode(torch.randn(latents.shape, generator=dice)))
        frozen = look_at(faults.freeze(real.video))
        swapped = drawn.attributes[1:] + drawn.attributes[:1]

        def means(frames: Frames, asked: list[Attributes]) -> dict[str, float]:
            fidelity = judge_frames(frames, asked, world).fidelity
            raw = scores(TrackedClips.of(frames), asked, fidelity, world)
            return {name: float(values.double().mean()) for name, values in raw.items()}

        of_noise, of_swapped = means(noise, drawn.attributes), means(real, swapped)
        floor = {name: of_swapped[name] if name in SEMANTIC else of_noise[name] for name in NAMES}
        floor["dynamic_degree"] = means(frozen, drawn.attributes)["dynamic_degree"]
        return cls(floor, means(real, drawn.attributes))


def score_arm(clips: DecodedClips, world: World, bounds: Bounds) -> pd.DataFrame:
    """One row per clip: its prompt and seed, what is right, the colour that it shows (None: none), the aggregates and
    every normalised dimension.

    A failed clip scores 0 in every dimension: its black stand-in is consistent, steady and smooth. A clip whose prompt
    leaves the colour open has no dimensions: nothing says what it should show.
    """
    frames = look_at(clips.video)
    judgement = judge_frames(frames, clips.asked, world)
    measured = scores(TrackedClips.of(frames), clips.asked, judgement.fidelity, world)
    raw = pd.DataFrame({name: values.double().numpy() for name, values in measured.items()})
    dimensions = normalise(raw[list(NAMES)], bounds.floor, bounds.ceiling)
    dimensions[clips.failed] = 0.0
    dimensions[[each.open for each in clips.asked]] = float("nan")
    rows = clips.rows[["arm", "group", "prompt_id", "prompt", "seed"]].reset_index(drop=True)
    shown = [COLOURS[colour] if colour >= 0 else None for colour in judgement.shown[:, 1].tolist()]
    colours = pd.Series(shown, name="shown_colour", dtype=object)
    # `colour` and `motion` are names of a dimension and of what is right, hence the prefix.
    columns = [rows, clips.table(judgement), colours, dimensions.add_prefix(DIMENSION), aggregate(dimensions)]
    return pd.concat(columns, axis=1)


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
    quality = (normalised[list(QUALITY)] * weights).sum(axis=1, skipna=False) / weights.sum()
    semantic = normalised[list(SEMANTIC)].mean(axis=1, skipna=False)
    return pd.DataFrame({"quality": quality, "semantic": semantic, "total": (4 * quality + semantic) / 5})


def group_metrics(clips: pd.DataFrame, params: Evaluate, seed: int) -> dict[str, Metrics]:
    """What the groups beside main show: all right by arm, that of held-out combinations over the teacher's, entropies.

    A group without prompts has no metrics.
    """
    metrics = entropy_metrics(clips[clips["group"] == OPEN_ENDED], params, seed)
    for arm, group in product(ARMS, (HELD_OUT, OPEN_ENDED)):
        rows = clips[(clips["arm"] == arm) & (clips["group"] == group)]
        if len(rows):
            right = rows["all_attributes"]
            low, high = bootstrap_interval(right, rows["prompt_id"], params.resamples, seed)
            metrics[arm] = {**metrics.get(arm, {}), group: float(right.mean()), f"{group}_interval": [low, high]}
    held_out = clips[clips["group"] == HELD_OUT].groupby(["arm", "prompt_id"])["all_attributes"].mean()
    if len(held_out):
        ratio, interval = ratio_of_means(held_out["student"], held_out["teacher"], params.resamples, seed)
        against = metrics.setdefault("student_vs_teacher", {})
        against |= {"held_out_ratio": ratio, "held_out_ratio_interval": interval}
    return metrics
