"""Drift of long streams: windows of a clip's length that begin at every block of the student, judged one by one.

Windows that follow one another without a gap have the same offset, the frame at which their first one begins. A student
may be right in every window and still slip from phase to phase between them, so the phase of a stream's first right
window, at whatever offset, is followed too.
"""

from typing import Any

import pandas as pd
import torch

from filmstill.errors import require
from filmstill.evaluate.bench import HIGH, LOW
from filmstill.evaluate.intervals import bootstrap_interval
from filmstill.evaluate.judged_clips import JUDGED, DecodedClips
from filmstill.params.evaluate import Evaluate
from filmstill.params.student import Blocks
from filmstill.params.world import World
from filmstill.worlds.judge import judge_frames, look_at

PHASE_KEPT = "phase_kept"  # column: whether all is right and in the phase of the stream's first right window
SCORES = (*JUDGED, PHASE_KEPT)


def score_windows(streams: DecodedClips, world: World, window_frames: int, blocks: Blocks) -> pd.DataFrame:
    """One row per stream and window: prompt_id, offset, `frame`, where the window ends, and SCORES; by `frame`.

    A shorter last window is left out. Raises FilmstillError for a window that is longer than the stream.
    """
    length = streams.video.shape[1]
    allowed = f"at most samples.long_frames ({length})"
    require(window_frames <= length, "evaluate.window_frames", window_frames, allowed)
    frames, tables = look_at(streams.video), []
    unknown = -1
    begun = torch.full((len(streams.asked),), unknown)  # phase at frame 0, by each stream's first right window
    for start in window_starts(length, window_frames, blocks):
        judgement = judge_frames(frames.window(start, start + window_frames), streams.asked, world)
        at_frame_0 = (judgement.phase - start) % world.period
        begun = torch.where((begun == unknown) & judgement.all_right, at_frame_0, begun)
        table = streams.table(judgement)
        table[PHASE_KEPT] = table["all_attributes"] * (at_frame_0 == begun).numpy()
        table.insert(0, "frame", start + window_frames)
        table.insert(0, "offset", start % window_frames)
        table.insert(0, "prompt_id", streams.rows["prompt_id"].to_numpy())
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def window_starts(length: int, window_frames: int, blocks: Blocks) -> list[int]:
    """First frames of all whole windows of a stream of `length` frames, at every offset that begins a block."""
    offsets = (0, *range(blocks.first_block_frames, window_frames, blocks.block_frames))
    return sorted(s for offset in offsets for s in range(offset, length - window_frames + 1, window_frames))


def window_means(windows: pd.DataFrame, params: Evaluate, seed: int) -> pd.DataFrame:
    """One row per window: offset, frame, the mean of every score, and with LOW and HIGH its interval over prompts."""
    means = windows.groupby(["offset", "frame"])[list(SCORES)].mean().reset_index().sort_values("frame")
    for name in SCORES:
        of_window = [rows for _, rows in windows.groupby("frame")]  # in the order of `frame`
        ends = [bootstrap_interval(rows[name], rows["prompt_id"], params.resamples, seed) for rows in of_window]
        means[name + LOW], means[name + HIGH] = zip(*ends, strict=True)
    return means.reset_index(drop=True)


def stream_metrics(windows: pd.DataFrame, means: pd.DataFrame, params: Evaluate, seed: int) -> dict[str, Any]:
    """The streams in a few numbers: all windows together, and per offset.

    worst_window, mean_window: all right. phase_kept, last_fidelity: of an offset's last window; of all offsets, the
    least.
    """
    by_offset = {str(offset): _of_offset(rows) for offset, rows in means.groupby("offset")}
    worst = means.iloc[means["all_attributes"].argmin()]
    mean_interval = bootstrap_interval(windows["all_attributes"], windows["prompt_id"], params.resamples, seed)
    return {
        "prompts": windows["prompt_id"].nunique(),
        "frames": int(means["frame"].max()),
        "worst_window": float(worst["all_attributes"]),
        "worst_window_interval": [float(worst["all_attributes" + end]) for end in (LOW, HIGH)],
        "worst_window_end": int(worst["frame"]),
        "mean_window": float(means["all_attributes"].mean()),
        "mean_window_interval": list(mean_interval),
        **{name: min(offset[name] for offset in by_offset.values()) for name in ("phase_kept", "last_fidelity")},
        "by_offset": by_offset,
    }


def _of_offset(means: pd.DataFrame) -> dict[str, float]:
    """The windows of one offset, by `frame`."""
    last = means.iloc[-1]
    return {
        "worst_window": float(means["all_attributes"].min()),
        "mean_window": float(means["all_attributes"].mean()),
        "phase_kept": float(last[PHASE_KEPT]),
        "last_fidelity": float(last["fidelity"]),
    }
