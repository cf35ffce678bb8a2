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
from filmstill.params.world import World
from filmstill.runtime.tables import read_table

DIMENSION = "n_"  # prefix of a dimension's column in the table of clips: other scores may have a dimension's name


@dataclass(frozen=True)
class SampledClips:
    """The samples artifact in `folder`.

    codec: file of the codec that made the latents. manifest has one row per clip, failed one per clip that is not
    finite, timing one per arm and round in which the arms were timed in turns.
    """

    folder: Path
    codec: Path
    manifest: pd.DataFrame
    timing: pd.DataFrame
    failed: pd.DataFrame

    @classmethod
    def read(cls, folder: Path, codec: Path) -> "SampledClips":
        """Read the tables. Raises FilmstillError for one that is missing or damaged."""
        tables = (read_table(folder / f"{name}.parquet") for name in ("manifest", "timing", "failed"))
        return cls(folder, codec, *tables)

    def of_arm(self, arm: str) -> pd.DataFrame:
        """Manifest rows of an arm, numbered from 0."""
        return self.manifest[self.manifest["arm"] == arm].reset_index(drop=True)

    def for_sheet(self, arm: str, prompts: int) -> pd.DataFrame:
        """Manifest rows of an arm's first clip of each of the first `prompts` prompts, numbered as in `of_arm`."""
        return self.of_arm(arm).drop_duplicates("prompt_id").head(prompts)


@dataclass(frozen=True)
class Measurement:
    """What a bench measured.

    clips: columns arm, prompt_id, prompt, seed and the bench's scores and dimensions; one row per clip of the arms
    compared. A bench may add its rows of the long stream, which are only averaged per prompt.
    drift: one row per window of the long stream: `frame`, where the window ends, then mean scores.
    sheet: per arm, clips [N, F, 3, H, W] in [0, 1] of the first prompts, shown at `sheet_fps`.
    pixel_frames: frames of a clip as a viewer sees it.
    diversity: per arm, how much clips of one prompt differ from seed to seed.
    details: facts that details.json has beside the arms.
    """

    clips: pd.DataFrame
    drift: pd.DataFrame
    sheet: dict[str, Tensor]
    sheet_fps: int
    pixel_frames: int
    diversity: dict[str, float | None] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A section of the page: heading, a sentence, a table (heading, rows) and a plot (name, caption)."""

    heading: str
    text: str = ""
    table: tuple[list[str], list[list[str]]] | None = None
    plot: tuple[str, str] | None = None


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
