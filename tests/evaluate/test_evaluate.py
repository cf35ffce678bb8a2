"""The common frame of all benches, by a toy bench and numbers computed by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from filmstill.evaluate import plots
from filmstill.evaluate.bench import DIMENSION, Bench, Measurement, SampledClips, Section
from filmstill.evaluate.evaluate import evaluate
from filmstill.evaluate.requests import LONG_ARM
from filmstill.evaluate.results_table import ResultsTable
from filmstill.params.evaluate import Evaluate
from filmstill.params.student import Student
from filmstill.params.world import World
from filmstill.runtime.tables import write_table

SCORES = {"teacher": {"a": 1.0, "b": 0.5, "c": 0.9}, "student": {"a": 0.5, "b": 0.25, "c": 0.9}}  # by arm and prompt
SECONDS = {"teacher": 4.0, "student": 0.5}


def measure(samples: SampledClips, _world: World, params: Evaluate, _seed: int) -> Measurement:
    """`good` as in SCORES, and the dimension `dark`, its complement."""
    rows = samples.manifest[samples.manifest["arm"] != LONG_ARM]
    clips = rows.assign(good=[SCORES[row.arm][row.prompt_id] for row in rows.itertuples()])
    return Measurement(
        clips=clips.assign(**{DIMENSION + "dark": 1 - clips["good"]}),
        drift=pd.DataFrame(
            {"offset": [0, 3, 0], "frame": [12, 15, 24], "good": [0.75, 0.5, 0.25], "bad": [0.0, 0.5, 1.0]}
        ).assign(good_low=0.0, good_high=1.0),
        sheet={arm: torch.zeros(len(samples.for_sheet(arm, params.sheet_prompts)), 2, 3, 8, 8) for arm in SCORES},
        sheet_fps=8,
        streams=torch.zeros(1, 4, 3, 8, 8),
        stream_window=2,
        pixel_frames=12,
        metrics={"student": {"varied": 0.5}, "stream": {"worst": 0.25}, "student_vs_real": {"varied_ratio": 1.0}},
        details={"world": {"floor": 0}},
    )


BENCH = Bench(
    name="toy",
    table=ResultsTable("toy", tuple(SCORES), {"good": ("good", 2)}, lambda _: "a headline", lambda _: ["a line"]),
    measure=measure,
    scores=("good",),
    dimensions=("dark",),
    with_interval=("good",),
    compared=("good",),
    main_score="good",
    costs=("seconds_per_clip", "frames_per_second"),
    prompt_digits=2,
    page_title="toy",
    page_warning="a warning",
    page_note=lambda metrics: f"{metrics['clips']} clips",
    page_sections=lambda _: [Section("Dark", "A sentence.", (["x"], [["y"]]), ("dark", "a caption"))],
    draw=lambda metrics: {"dark": plots.scores(metrics, {"All": ("good", "dark")}, "toy")},
)


@pytest.fixture
def samples(tmp_path: Path) -> SampledClips:
    """Two prompts with two seeds each, of two arms, one of another group, and a long stream; one clip has failed."""
    main = [(arm, "main", prompt, f"prompt {prompt}", seed) for arm in SCORES for prompt in "ab" for seed in (0, 1)]
    other = [(arm, "held_out", "c", "prompt c", 0) for arm in SCORES]
    stream = [(LONG_ARM, "main", "a", "prompt a", 0)]
    clips = pd.DataFrame(main + other + stream, columns=["arm", "group", "prompt_id", "prompt", "seed"])
    timing = pd.DataFrame(
        [(arm, turn, seconds * slow) for turn, slow in enumerate((1, 3, 1.5)) for arm, seconds in SECONDS.items()],
        columns=["arm", "round", "seconds"],
    ).assign(network_seconds=1.0, first_block_seconds=0.1, evaluations_per_clip=5.0)
    timing.loc[timing.eval("arm == 'teacher' and round == 2"), "seconds"] *= 2  # disturbed in its turn only
    tables = {"manifest": clips, "timing": timing, "failed": clips.head(1)}
    for name, table in tables.items():
        write_table(tmp_path / f"samples/{name}.parquet", table)
    return SampledClips.read(tmp_path / "samples", tmp_path / "no codec", Student())


def test_any_bench_is_summarised_compared_and_written(samples: SampledClips, tmp_path: Path):
    out = tmp_path / "evaluate"
    evaluate(BENCH, samples, World(), Evaluate(resamples=100, sheet_prompts=1), 0, out)
    metrics, details = (json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "details"))
    student = {"good": 0.375, "seconds_per_clip": 0.75, "frames_per_second": 16.0, "varied": 0.5}
    assert metrics == {
        "bench": "toy",
        "window_frames": 12,
        "clips": 4,
        "failed_clips": 1,
        "teacher": {"good": 0.75, "seconds_per_clip": 12.0, "frames_per_second": 1.0, "seconds_range": [4.0, 12.0]},
        "student": {**student, "seconds_range": [0.5, 1.5]},
        "stream": {"by_window": {"good": [0.75, 0.25], "bad": [0.0, 1.0]}, "worst": 0.25},
        "student_vs_real": {"varied_ratio": 1.0},
        "student_vs_teacher": {
            "speedup": 8.0,
            "speedup_range": [8.0, 16.0],
            "good_ratio": 0.5,
            "good_ratio_interval": [0.5, 0.5],
            "good_difference": -0.375,
            "good_interval": [-0.5, -0.25],
        },
    }
    assert details["student"] == {
        "dimensions": {"dark": 0.625},
        "intervals": {"good": [0.25, 0.5], "dark": [0.5, 0.75]},
    }
    assert details["world"] == {"floor": 0} and details.keys() == {"student", "teacher", "world"}


def test_any_bench_has_tables_plots_and_a_page(samples: SampledClips, tmp_path: Path):
    out = tmp_path / "evaluate"
    evaluate(BENCH, samples, World(), Evaluate(resamples=100, sheet_prompts=1), 0, out)
    assert (out / "scores.csv").read_text() == 'score,dimension\n0.250000,"dark, teacher"\n0.625000,"dark, student"\n'
    assert (out / "drift.csv").read_text().splitlines()[1:] == [
        "0,12,0.750000,0.000000,0.000000,1.000000,0.750000",
        "3,15,0.500000,0.500000,0.000000,1.000000,0.500000",
        "0,24,0.250000,1.000000,0.000000,1.000000,0.250000",
    ]
    assert (out / "per_prompt.csv").read_text().splitlines()[1] == "held_out,c,prompt c,student,0.90"
    assert len(pd.read_parquet(out / "per_video.parquet")) == 10
    page = (out / "report.html").read_text()
    for part in (
        "<title>filmstill: toy</title>",
        "a warning",
        "a headline",
        "4 clips",
        "<p>A sentence.</p>",
        "<td>y</td>",
    ):
        assert part in page, part
    assert page.count("data:image/") == 3 and (out / "plots/dark.png").is_file()
    assert (out / "sheet.png").is_file() and (out / "stream.png").is_file()
