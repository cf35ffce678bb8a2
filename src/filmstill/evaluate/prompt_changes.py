"""Streams whose prompt changes: when the new prompt is right, whether it stays so, and what was there before.

Windows of `evaluate.window_frames` are judged one by one. Those that begin at a block from the change on are judged
under the new prompt, those that end by the change under the first one; a window across the change has no prompt.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.evaluate.bench import HIGH, LOW, ChangedStreams, SampledClips
from filmstill.evaluate.intervals import bootstrap_interval, mean_with_interval
from filmstill.evaluate.judged_clips import DecodedClips
from filmstill.evaluate.metrics import STAY_RIGHT, WITHIN_BLOCKS, Metrics
from filmstill.evaluate.requests import CHANGED_ARM
from filmstill.models.codec import DctCodec
from filmstill.params.evaluate import CHANGE_BLOCKS, Evaluate
from filmstill.params.world import World
from filmstill.worlds.grammar import Attributes, parse_all
from filmstill.worlds.judge import judge_frames, look_at

BEGINS = "begins"  # column: frames from the change to the window's first one; negative before the change
RIGHT = "all_attributes"  # column: whether all is right, 0 or 1


@dataclass(frozen=True)
class PromptChanges:
    """Metrics of "prompt_change", further facts for details.json, and the streams of the sheet."""

    metrics: Metrics
    details: dict[str, Any]
    sheet: ChangedStreams


def measure_changes(
    samples: SampledClips, codec: DctCodec, world: World, params: Evaluate, seed: int, shown: int
) -> PromptChanges | None:
    """Judge the streams, of which `shown` go on the sheet; None where no such streams were made."""
    if samples.of_arm(CHANGED_ARM).empty:
        return None
    streams = DecodedClips.of(samples, CHANGED_ARM, codec)
    rows, block = streams.rows, samples.student.block_frames
    change, following = int(rows["change_frame"].iloc[0]), parse_all(rows["next_prompt"].tolist(), EVAL_PROMPTS)
    windows = score_changes(streams, following, change, world, params.window_frames, block)
    means, until = change_means(windows, params, seed), blocks_until_right(windows, block)
    of_streams = {**rows[["prompt", "next_prompt"]].to_dict("list"), "blocks_until_right": list(until.values())}
    facts = {"prompts": len(rows), "change_frame": change, "frames": streams.video.shape[1]}
    of_sheet = samples.for_sheet(CHANGED_ARM, shown)
    captions = [f"{_short(streams.asked[row])} → {_short(following[row])}" for row in of_sheet.index]
    return PromptChanges(
        {**facts, **change_metrics(windows, means, until, block, params, seed)},
        {"changed_windows": means.to_dict("list"), "changed_streams": of_streams},
        ChangedStreams(streams.video[of_sheet.index.tolist()], captions, change),
    )


def score_changes(
    streams: DecodedClips,
    following: list[Attributes],
    change_frame: int,
    world: World,
    window_frames: int,
    block_frames: int,
) -> pd.DataFrame:
    """One row per stream and window: prompt_id, BEGINS and RIGHT; by BEGINS. A failed stream is never right.

    following: what the second prompts name. The prompt changes at `change_frame`, the first frame of a block.
    """
    frames, tables = look_at(streams.video), []
    first = change_frame % block_frames
    for start in range(first, streams.video.shape[1] - window_frames + 1, block_frames):
        if change_frame - window_frames < start < change_frame:
            continue
        asked = following if start >= change_frame else streams.asked
        table = streams.table(judge_frames(frames.window(start, start + window_frames), asked, world))[[RIGHT]]
        table.insert(0, BEGINS, start - change_frame)
        table.insert(0, "prompt_id", streams.rows["prompt_id"].to_numpy())
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def blocks_until_right(windows: pd.DataFrame, block_frames: int) -> dict[str, int | None]:
    """By prompt_id, blocks from the change to the first window that is right under the new prompt.

    0: the window that begins at the change is. None: no window is.
    """
    right = windows[(windows[BEGINS] >= 0) & (windows[RIGHT] == 1)].groupby("prompt_id")[BEGINS].min()
    return {each: int(right[each]) // block_frames if each in right else None for each in windows["prompt_id"].unique()}


def change_means(windows: pd.DataFrame, params: Evaluate, seed: int) -> pd.DataFrame:
    """One row per window: BEGINS, the share of streams that are right, and with LOW and HIGH its interval."""
    rows = []
    for begins, window in windows.groupby(BEGINS):
        low, high = bootstrap_interval(window[RIGHT], window["prompt_id"], params.resamples, seed)
        rows.append({BEGINS: begins, RIGHT: float(window[RIGHT].mean()), RIGHT + LOW: low, RIGHT + HIGH: high})
    return pd.DataFrame(rows)


def change_metrics(
    windows: pd.DataFrame,
    means: pd.DataFrame,
    until: dict[str, int | None],
    block_frames: int,
    params: Evaluate,
    seed: int,
) -> Metrics:
    """The streams in a few numbers, shares with their intervals over prompts.

    before: of the windows before the change, under the first prompt; absent if there is none. WITHIN_BLOCKS: of streams
    that are right in a window that begins at most CHANGE_BLOCKS blocks after the change. stay_right: of those that are
    so, and right in every window that begins so late or later. later_mean, later_worst: of these windows, all streams.
    median_blocks: blocks until the median stream is right; None: never.
    """
    metrics: Metrics = {}
    if len(before := windows[windows[BEGINS] < 0]):
        metrics |= _share("before", before, params, seed)
    soon = pd.DataFrame({"prompt_id": list(until), RIGHT: [float(_soon(blocks)) for blocks in until.values()]})
    later, later_means = (table[table[BEGINS] >= CHANGE_BLOCKS * block_frames] for table in (windows, means))
    always = later.groupby("prompt_id")[RIGHT].min().reindex(soon["prompt_id"]).to_numpy()
    worst = later_means.iloc[later_means[RIGHT].argmin()]
    ranked = sorted(float("inf") if blocks is None else blocks for blocks in until.values())
    median = ranked[(len(ranked) - 1) // 2]
    return {
        **metrics,
        **_share(WITHIN_BLOCKS, soon, params, seed),
        **_share(STAY_RIGHT, soon.assign(**{RIGHT: soon[RIGHT] * always}), params, seed),
        **_share("later_mean", later, params, seed),
        "later_worst": float(worst[RIGHT]),
        "later_worst_interval": [float(worst[RIGHT + end]) for end in (LOW, HIGH)],
        "median_blocks": None if median == float("inf") else int(median),
    }


def _short(asked: Attributes) -> str:
    """What a prompt names, in few words: two sentences do not fit below a small clip."""
    return f"{asked.colour} {asked.symbol} {asked.motion}"


def _soon(blocks: int | None) -> bool:
    return blocks is not None and blocks <= CHANGE_BLOCKS


def _share(name: str, rows: pd.DataFrame, params: Evaluate, seed: int) -> Metrics:
    return mean_with_interval(name, rows[RIGHT], rows["prompt_id"], params.resamples, seed)
