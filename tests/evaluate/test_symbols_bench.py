"""symbols-bench from a samples artifact to its files, with arms whose scores are known."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from filmstill.evaluate import faults
from filmstill.evaluate.bench import SampledClips
from filmstill.evaluate.evaluate import evaluate
from filmstill.evaluate.symbols_bench import SYMBOLS_BENCH
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import World
from filmstill.worlds.grammar import COLOURS, COMBINATIONS, Attributes
from filmstill.worlds.symbols import real_clips, render
from judged import others
from symbols_samples import prompts_of, rows_of, write_samples

WORLD = World()
MAIN = [each for each in COMBINATIONS if not each.held_out][::30]  # 9
HELD_OUT = [each for each in COMBINATIONS if each.held_out][:4]
OPEN = [Attributes("star", None, "bobs"), Attributes("sun", None, "sways")]
SEEDS = 12
ASKED = [*(each for each in MAIN for _ in (0, 1)), *HELD_OUT, *(each for each in OPEN for _ in range(SEEDS))]
GROUPS = ["main"] * 2 * len(MAIN) + ["held_out"] * len(HELD_OUT) + ["open"] * SEEDS * len(OPEN)
NUMBERS = [*[0, 1] * len(MAIN), *[0] * len(HELD_OUT), *[*range(SEEDS)] * len(OPEN)]
ROWS = {arm: rows_of(arm, ASKED, GROUPS, NUMBERS) for arm in ("real", "teacher", "undistilled", "init", "student")}
LONG, PICTURES, CHANGED = (
    rows_of(arm, MAIN[:4], ["main"] * 4, [0] * 4) for arm in ("student_long", "student_picture", "student_changed")
)
FOLLOWING = others(MAIN[:4])
UNIFORM = [  # every colour as often as every other
    *(Attributes("star", colour, "bobs") for colour in COLOURS * 2),
    *(Attributes("sun", colour, "sways") for colour in COLOURS * 2),
]
NAMED = len(ASKED) - len(UNIFORM)


def clips(shown: list[Attributes]) -> Tensor:
    """Clips of ASKED where nothing is left open, then those that show `shown`."""
    return render([*ASKED[:NAMED], *shown], 12, WORLD)


def collapsed() -> Tensor:
    """Clips of a student that shows one colour where it is open, fails at one clip and at one held-out prompt."""
    video = clips([UNIFORM[i // SEEDS * SEEDS] for i in range(len(UNIFORM))])
    video[0, 6] = float("nan")
    video[2 * len(MAIN)] = faults.freeze(video[2 * len(MAIN)][None])[0]
    return video


def from_pictures() -> Tensor:
    """Clips of which the second jumps to another phase after its first frame."""
    video = render(MAIN[:4], 12, WORLD)
    video[1, 1:] = render(MAIN[1:2], 12, WORLD, first_frame=3)[0, 1:]
    return video


def changed() -> Tensor:
    """Streams of 36 frames whose prompt changes at frame 12; the third never follows, the fourth one block late."""
    old, new = (render(shown, 36, WORLD) for shown in (MAIN[:4], FOLLOWING))
    for index, frame in enumerate((12, 12, 36, 15)):
        old[index, frame:] = new[index, frame:]
    return old


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that evaluate wrote. The teacher's clips are real, its open colours uniform; init's are frozen."""
    folder = tmp_path_factory.mktemp("symbols")
    videos = {
        "real": real_clips(ASKED, WORLD, 12, 0, NUMBERS),
        "teacher": clips(UNIFORM),
        "undistilled": torch.rand(len(ASKED), 12, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        "init": faults.freeze(clips(UNIFORM)),
        "student": collapsed(),
        "student_long": render(MAIN[:4], 36, WORLD),
        "student_picture": from_pictures(),
        "student_changed": changed(),
    }
    new = CHANGED.assign(next_prompt=prompts_of(FOLLOWING), change_frame=12)
    rows = {**ROWS, "student_long": LONG, "student_picture": PICTURES, "student_changed": new}
    samples = write_samples(folder / "samples", videos, rows)
    evaluate(SYMBOLS_BENCH, samples, WORLD, Evaluate(resamples=100, references=48, sheet_prompts=2), 0, folder / "out")
    return folder / "out"


@pytest.fixture
def metrics(evaluated: Path) -> dict[str, Any]:
    return json.loads((evaluated / "metrics.json").read_text())


def test_the_main_group_alone_makes_the_table(metrics: dict[str, Any]):
    assert metrics["bench"] == "symbols" and metrics["clips"] == 18 and metrics["failed_clips"] == 1
    for arm in ("real", "teacher"):
        assert [metrics[arm][name] for name in ("all_attributes", "symbol", "colour", "motion")] == [1, 1, 1, 1]
        assert metrics[arm]["fidelity"] > 26 and metrics[arm]["total"] == pytest.approx(1, abs=0.05)
    assert [metrics["init"][name] for name in ("all_attributes", "symbol", "colour", "motion")] == [0, 1, 1, 0]
    assert metrics["undistilled"]["all_attributes"] == metrics["undistilled"]["symbol"] == 0
    assert metrics["undistilled"]["total"] < 0.3
    assert metrics["init"]["total"] < metrics["teacher"]["total"]


def test_a_clip_that_is_not_finite_scores_0_everywhere(metrics: dict[str, Any], evaluated: Path):
    share = pytest.approx(17 / 18)
    assert [metrics["student"][name] for name in ("all_attributes", "symbol", "colour", "motion")] == [share] * 4
    assert metrics["student"]["fidelity"] == pytest.approx(17 / 18 * metrics["teacher"]["fidelity"], rel=0.02)
    assert metrics["student"]["total"] == pytest.approx(17 / 18 * metrics["teacher"]["total"], rel=0.02)
    row = pd.read_parquet(evaluated / "per_video.parquet").query("arm == 'student'").iloc[0]
    scores = row.drop(["arm", "group", "prompt_id", "prompt", "seed", "shown_colour"])
    assert (scores.astype(float) == 0).all() and len(scores) == 5 + 11 + 3


def test_held_out_combinations_are_scored_apart(metrics: dict[str, Any]):
    assert metrics["teacher"]["held_out"] == 1 and metrics["student"]["held_out"] == 0.75
    against = metrics["student_vs_teacher"]
    low, high = against["held_out_ratio_interval"]
    assert against["held_out_ratio"] == 0.75 and 0 <= low < 0.75 < high <= 1


def test_a_collapsed_student_has_no_entropy(metrics: dict[str, Any]):
    assert metrics["teacher"]["entropy"] == pytest.approx(1)
    assert metrics["student"]["entropy"] == 0 and metrics["undistilled"]["entropy"] == 0
    assert 0.6 < metrics["real"]["entropy"] < 1, "uniform draws"
    assert metrics["student_vs_teacher"]["entropy_ratio"] == metrics["student_vs_real"]["entropy_ratio"] == 0
    assert metrics["student_vs_teacher"]["entropy_ratio_interval"] == [0, 0]
    assert metrics["init"]["entropy"] == pytest.approx(1), "colours are shown, though they do not move"
    assert metrics["student"]["open"] == 1 and metrics["init"]["open"] == 0, "any colour will do"


def test_the_stream_is_in_the_metrics_and_its_windows_in_the_tables(metrics: dict[str, Any], evaluated: Path):
    stream = metrics["stream"]
    assert (stream["prompts"], stream["frames"]) == (4, 36)
    assert stream["worst_window"] == stream["mean_window"] == stream["phase_kept"] == 1
    assert set(stream["by_offset"]) == {"0", "3", "6", "9"} and len(stream["by_window"]["fidelity"]) == 3
    drift = pd.read_csv(evaluated / "drift.csv")
    assert drift["frame"].tolist() == list(range(12, 37, 3)), "one curve for DVC"
    assert (drift["score"] == drift["all_attributes"]).all() and set(drift["offset"]) == {0, 3, 6, 9}


def test_pictures_and_changes_are_in_the_metrics_and_streams_one_by_one_in_the_details(
    metrics: dict[str, Any], evaluated: Path
):
    picture, change = metrics["picture"], metrics["prompt_change"]
    assert (picture["prompts"], picture["strict"], picture["first_frame_kept"]) == (4, 0.75, 1)
    low, high = picture["strict_interval"]
    assert 0 < low < 0.75 < high == 1
    assert (change["prompts"], change["change_frame"], change["frames"]) == (4, 12, 36)
    assert change["before"] == 1 and change["within_3_blocks"] == 0.75 and change["median_blocks"] == 0
    assert change["later_worst"] == change["later_mean"] == 0.75
    details = json.loads((evaluated / "details.json").read_text())
    assert details["changed_streams"]["blocks_until_right"] == [0, 0, None, 1]
    assert details["changed_streams"]["next_prompt"] == prompts_of(FOLLOWING)
    assert details["changed_windows"]["begins"] == [-12, 0, 3, 6, 9, 12]
    assert details["changed_windows"]["all_attributes"] == [1, 0.5, 0.75, 0.75, 0.75, 0.75]
    assert "changed_windows" not in metrics and "student_changed" not in metrics


def test_the_files_show_it(evaluated: Path):
    drawn = {path.name for path in (evaluated / "plots").iterdir()}
    sheets = {"changed_streams.gif", "changed_streams.png"}
    assert drawn == {"drift.png", "scores.png", "speed.png", "prompt_change.png", *sheets}
    page = (evaluated / "report.html").read_text()
    assert "symbols-bench: scores of this embedded world" in page and page.count("data:image/") == 7
    assert "<h2>From a picture, and prompts that change</h2>" in page and "<td>... and keep its phase</td>" in page
    per_prompt = pd.read_csv(evaluated / "per_prompt.csv")
    assert set(per_prompt["group"]) == {"main", "held_out", "open"}
    assert per_prompt.query("group == 'open'")["total"].isna().all(), "nothing says what they should show"


def test_a_run_without_the_other_groups_has_dashes_and_no_error(tmp_path: Path):
    rows = {arm: table[table["group"] == "main"] for arm, table in ROWS.items()}
    videos = dict.fromkeys(ROWS, render(ASKED[: 2 * len(MAIN)], 12, WORLD)) | {
        "student_long": render(MAIN[:4], 24, WORLD)
    }
    samples: SampledClips = write_samples(tmp_path / "samples", videos, {**rows, "student_long": LONG})
    params = Evaluate(resamples=100, references=24, sheet_prompts=1)
    metrics = evaluate(SYMBOLS_BENCH, samples, WORLD, params, 0, tmp_path / "out")
    assert metrics["student_vs_teacher"]["all_attributes_ratio"] == 1
    assert "held_out" not in metrics["student"] and "entropy" not in metrics["student"]
    assert "picture" not in metrics and "prompt_change" not in metrics
    assert {path.stem for path in (tmp_path / "out/plots").iterdir()} == {"drift", "scores", "speed"}
    assert len(SYMBOLS_BENCH.table.further(metrics)) == 1, "the long stream's alone"
    assert SYMBOLS_BENCH.table.lines(metrics)[0] == "held-out combinations: – of the teacher's score"
