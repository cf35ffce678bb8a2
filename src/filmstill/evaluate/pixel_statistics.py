"""Pixel statistics: how steady, moving, sharp and rich in contrast clips of the open world are.

Clips are read from their video files, as a viewer gets them. No network judges them and nothing says what a clip
should show, so the statistics compare the student with its teacher on the same prompts and seeds, and the windows of
a long stream with each other.

Source of temporal flickering: VBench (arXiv:2311.17982), which measures it on still scenes only.
"""

from pathlib import Path

import imageio.v3 as iio
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from filmstill.artifacts import SAMPLES
from filmstill.errors import FilmstillError
from filmstill.evaluate import plots
from filmstill.evaluate.bench import Bench, Measurement, SampledClips, Section
from filmstill.evaluate.metrics import Metrics, number
from filmstill.evaluate.requests import LONG_ARM, short_arms
from filmstill.evaluate.results_table import PIXEL_TABLE
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import OPEN, World
from filmstill.runtime.image import shrunk
from filmstill.runtime.progress import progress

STATISTICS = {  # name -> (label, what it is)
    "temporal_flickering": ("steadiness", "1 less the mean change of a pixel from frame to frame"),
    "motion": ("motion", "mean change of 8 × 8 pixels from frame to frame"),
    "sharpness": ("sharpness", "root mean square step of luma from pixel to pixel"),
    "contrast": ("contrast", "standard deviation of luma in a frame"),
}
STRIDE = 4  # pixel frames per latent frame, after the first
SHEET_HEIGHT, SHEET_FPS = 120, 8  # pixels and frames per second of a clip on the sheet


def measure(samples: SampledClips, world: World, params: Evaluate, _seed: int) -> Measurement:
    """Statistics of every clip and of every window of the long streams."""
    rows = []
    with progress("evaluate", len(samples.manifest), unit="clip") as bar:
        for clip in samples.manifest[["arm", "group", "prompt_id", "prompt", "seed", "video"]].to_dict("records"):
            pieces = windows(read_video(samples.folder / clip.pop("video")), clip["arm"], params)
            rows += [{**clip, "window": window, **statistics(piece)} for window, piece in enumerate(pieces)]
            bar.update()
    clips = drop_failed(pd.DataFrame(rows), samples.failed)
    drift = clips[clips["arm"] == LONG_ARM].groupby("window")[list(STATISTICS)].mean().reset_index(drop=True)
    drift.insert(0, "frame", STRIDE * params.window_frames * (drift.index + 1))
    drift.insert(0, "offset", 0)
    return Measurement(
        clips=clips,
        drift=drift,
        sheet={arm: sheet_clips(samples, arm, world, params) for arm in short_arms(OPEN)},
        sheet_fps=SHEET_FPS,
        streams=sheet_clips(samples, LONG_ARM, world, params),
        stream_window=STRIDE * params.window_frames // _every(world.fps),
        pixel_frames=1 + STRIDE * (world.frames - 1),
    )


def statistics(video: Tensor) -> dict[str, float]:
    """Statistics of one clip [F, 3, H, W] in [0, 1] of at least two frames, in units of white (1) minus black (0)."""
    luma = video.mean(dim=1)
    change = video.diff(dim=0).abs().mean().item()
    coarse = F.avg_pool2d(luma[:, None], 8, ceil_mode=True)[:, 0]  # averages grain away: it is no motion
    return {
        "temporal_flickering": 1 - change,
        "motion": coarse.diff(dim=0).abs().mean().item(),
        # Squares, because a plain sum is the same for an edge and for its blurred version.
        "sharpness": (luma.diff(dim=-1).square().mean() + luma.diff(dim=-2).square().mean()).sqrt().item(),
        "contrast": luma.flatten(1).std(dim=1).mean().item(),
    }


def windows(video: Tensor, arm: str, params: Evaluate) -> list[Tensor]:
    """A long stream [F, 3, H, W] in windows of `params.window_frames` latent frames; any other clip as one window.

    A last window of at most half the length is left out.
    """
    size = STRIDE * params.window_frames
    return [piece for piece in video.split(size) if len(piece) > size / 2] if arm == LONG_ARM else [video]


def drop_failed(clips: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """Rows whose prompt and seed have a finite clip in every arm, so that arms stay comparable.

    Failed clips are dropped because their grey stand-in would be the steadiest of all. Long streams are dropped by
    themselves. Raises FilmstillError if no clip or no long stream is left.
    """

    def keys(rows: pd.DataFrame) -> pd.MultiIndex:
        long = rows["arm"] == LONG_ARM
        return pd.MultiIndex.from_frame(rows[["prompt_id", "seed"]].assign(long=long))

    left = clips[~keys(clips).isin(keys(failed))]
    for long, kind in ((False, "clip"), (True, "long stream")):
        if ((clips["arm"] == LONG_ARM) == long).any() and not ((left["arm"] == LONG_ARM) == long).any():
            raise FilmstillError(f"{SAMPLES}: no {kind} is finite in every arm; look at the weights and their curves")
    return left


def read_video(path: Path) -> Tensor:
    """Video [F, 3, H, W] in [0, 1] of an mp4."""
    return torch.from_numpy(iio.imread(path, plugin="pyav")).movedim(-1, 1).float() / 255


def sheet_clips(samples: SampledClips, arm: str, world: World, params: Evaluate) -> Tensor:
    """Clips [N, F, 3, H, W] of the first prompts, small and slow enough for the sheet."""
    videos = samples.for_sheet(arm, params.sheet_prompts)["video"]
    return torch.stack([_small(read_video(samples.folder / video), world.fps) for video in videos])


def _small(video: Tensor, fps: int) -> Tensor:
    return shrunk(video[:: _every(fps)][None], SHEET_HEIGHT)[0]


def _every(fps: int) -> int:
    """Frames from one that the sheet shows to the next."""
    return max(1, fps // SHEET_FPS)


def draw(metrics: Metrics) -> dict[str, Figure]:
    labels = {name: label for name, (label, _) in STATISTICS.items()}
    return {
        "statistics": plots.relative_to_teacher(metrics, labels, "Statistics of clips"),
        "drift": plots.relative_drift(metrics),
    }


def note(metrics: Metrics) -> str:
    return f"{metrics['clips']} clips per arm, {metrics['failed_clips']} failed."


def sections(metrics: Metrics) -> list[Section]:
    """Differences of student and teacher, and drift."""
    against, differences = metrics["student_vs_teacher"], []
    for name, (label, meaning) in STATISTICS.items():
        low, high = against[f"{name}_interval"]
        difference = number(against[f"{name}_difference"], 4)
        differences.append([f"{label}: {meaning}", difference, f"{number(low, 4)} to {number(high, 4)}"])
    return [
        Section(
            "Student less teacher",
            "Paired by prompt and seed, 95 % intervals over prompts.",
            (["statistic", "difference", "interval"], differences),
            ("statistics", "statistics beside the teacher's, by arm"),
        ),
        Section(
            "Drift",
            "Statistics of the windows of a long stream, beside its first window's.",
            plot=("drift", "statistics of a long stream by window"),
        ),
    ]


PIXEL_STATISTICS = Bench(
    name=OPEN,
    table=PIXEL_TABLE,
    measure=measure,
    scores=tuple(STATISTICS),
    dimensions=(),
    with_interval=tuple(STATISTICS),
    compared=tuple(STATISTICS),
    main_score=None,
    costs=(
        "seconds_per_clip",
        "network_seconds_per_clip",
        "frames_per_second",
        "evaluations_per_clip",
        "first_block_seconds",
    ),
    prompt_digits=6,
    page_title="teacher to student",
    page_warning="pixel statistics of clips; no network judged them, and they are not comparable with VBench",
    page_note=note,
    page_sections=sections,
    draw=draw,
)
