"""A bench: one way to put clips in numbers, and how plots and the page show them. evaluate.py runs any bench."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from filmstill.evaluate.metrics import Metrics
from filmstill.evaluate.results_table import ResultsTable
from filmstill.params.evaluate import Evaluate
from filmstill.params.student import Student
from filmstill.params.world import World
from filmstill.prompts.eval_groups import MAIN
from filmstill.runtime.image import spread
from filmstill.runtime.tables import read_table

DIMENSION = "n_"  # prefix of a dimension's column in the table of clips: other scores may have a dimension's name
LOW, HIGH = "_low", "_high"  # suffixes of columns in the table of windows


@dataclass(frozen=True)
class SampledClips:
    """The samples artifact in `folder`.

    codec: file of the codec that made the latents. student: how the student rolled out.
    manifest has one row per clip, failed one per clip that is not finite, timing one per arm and round in which the
    arms were timed in turns.
    """

    folder: Path
    codec: Path
    student: Student
    manifest: pd.DataFrame
    timing: pd.DataFrame
    failed: pd.DataFrame

    @classmethod
    def read(cls, folder: Path, codec: Path, student: Student) -> "SampledClips":
        """Read the tables. Raises FilmstillError for one that is missing or damaged."""
        tables = (read_table(folder / f"{name}.parquet") for name in ("manifest", "timing", "failed"))
        return cls(folder, codec, student, *tables)

    def of_arm(self, arm: str) -> pd.DataFrame:
        """Manifest rows of an arm, numbered from 0."""
        return self.manifest[self.manifest["arm"] == arm].reset_index(drop=True)

    def for_sheet(self, arm: str, prompts: int) -> pd.DataFrame:
        """Manifest rows of an arm's first clip of each of `prompts` prompts spread over the group main, numbered as in
        `of_arm`."""
        rows = self.of_arm(arm)
        rows = rows[rows["group"] == MAIN].drop_duplicates("prompt_id")
        return rows.iloc[spread(len(rows), prompts)]


@dataclass(frozen=True)
class ChangedStreams:
    """Streams [N, F, 3, H, W] in [0, 1] whose prompt changes at `change_frame`, with a caption each."""

    video: Tensor
    captions: list[str]
    change_frame: int


@dataclass(frozen=True)
class Measurement:
    """What a bench measured.

    clips: columns arm, group, prompt_id, prompt, seed and the bench's scores and dimensions; one row per clip of the
    arms compared. An arm's means are those of its group main. A bench may add its rows of the long stream, which are
    only averaged per prompt.
    drift: one row per window of the long stream: `offset`, where the first window that it follows without a gap begins,
    `frame`, where it ends, then mean scores, and with LOW and HIGH the ends of their intervals if there are any.
    sheet: per arm, clips [N, F, 3, H, W] in [0, 1] of the prompts `for_sheet`, shown at `sheet_fps`.
    streams: long streams of as many prompts in the same form, of `stream_window` frames per window.
    pixel_frames: frames of a clip as a viewer sees it.
    metrics: further metrics, added to an arm's, to those of the long stream ("stream") or to those of two arms
    ("student_vs_teacher"), or of clips that begin with a picture ("picture") or change their prompt ("prompt_change").
    details: facts that details.json has beside the arms.
    changed: streams whose prompt changes, shown as `streams` are; None if there are none.
    """

    clips: pd.DataFrame
    drift: pd.DataFrame
    sheet: dict[str, Tensor]
    sheet_fps: int
    streams: Tensor
    stream_window: int
    pixel_frames: int
    metrics: dict[str, Metrics] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    changed: ChangedStreams | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page: heading, a sentence, a table (heading, rows), a plot and a GIF (name, caption)."""

    heading: str
    text: str = ""
    table: tuple[list[str], list[list[str]]] | None = None
    plot: tuple[str, str] | None = None
    gif: tuple[str, str] | None = None


@dataclass(frozen=True)
class Bench:
    """Everything in which one bench differs from another.

    name: `bench` in metrics.json.
    table: the results table; its arms are the ones compared.
    measure: scores the clips.

    Columns of Measurement.clips:
    scores: those whose means are metrics of an arm.
    dimensions: further ones, with the prefix DIMENSION; their means are the table `dimensions` of an arm.
    with_interval: scores whose means get an interval, as every dimension's mean does.
    compared: scores of the student that are paired with the teacher's.
    main_score: the one that says how good a clip is, if there is one.

    costs: times and speeds that are metrics of an arm.
    prompt_digits: digits after the point in per_prompt.csv.

    The page: title; warning, its first line; note, the number of clips; sections, after results table and sheet.
    draw: plots by name.
    """

    name: str
    table: ResultsTable
    measure: Callable[[SampledClips, World, Evaluate, int], Measurement]
    scores: tuple[str, ...]
    dimensions: tuple[str, ...]
    with_interval: tuple[str, ...]
    compared: tuple[str, ...]
    main_score: str | None
    costs: tuple[str, ...]
    prompt_digits: int
    page_title: str
    page_warning: str
    page_note: Callable[[Metrics], str]
    page_sections: Callable[[Metrics], list[Section]]
    draw: Callable[[Metrics], dict[str, Figure]]
