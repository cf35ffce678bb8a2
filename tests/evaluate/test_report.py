"""What a run ends with: the closing table, the sheet and the page, from whole metrics and from scraps."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from filmstill.__main__ import main
from filmstill.errors import FilmstillError
from filmstill.evaluate.report import FIRST_LINE, QUALITY, SEMANTIC, spread, write_report
from filmstill.evaluate.results_table import TITLES, closing_table, show_results
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.params.world import World
from filmstill.worlds.digits import draw

DIMENSIONS = (*SEMANTIC, *QUALITY)
SCORES = {"real": 0.979, "teacher": 0.969, "undistilled": 0.011, "init": 0.851, "student": 0.957}


def metrics_like_a_run() -> dict[str, Any]:
    """The shape that the evaluate stage writes."""
    arms = {}
    for arm, score in SCORES.items():
        names = (*DIMENSIONS, "all_attributes", "total")
        arms[arm] = {
            **dict.fromkeys(("all_attributes", "object", "colour", "motion", "total", "quality", "semantic"), score),
            "seconds_per_clip": 0.521 if arm == "teacher" else 0.019,
            "evaluations_per_clip": 96.0 if arm == "teacher" else 5.0,
            "first_block_seconds": 0.498 if arm == "teacher" else 0.0417,
            "diversity": 0.31,
            "dimensions": dict.fromkeys(DIMENSIONS, score),
            "intervals": {name: [max(0.0, score - 0.04), min(1.0, score + 0.03)] for name in names},
        }
    return {
        **arms,
        "student": {
            **arms["student"],
            "drift": [0.94, 0.25, 0.31, 0.25, 0.22],
            "drift_of": {
                "object": [0.96, 0.9, 0.9, 0.9, 0.91],
                "colour": [1.0, 1.0, 1.0, 1.0, 0.99],
                "motion": [0.98, 0.3, 0.33, 0.3, 0.27],
            },
        },
        "world": {"floor": dict.fromkeys(DIMENSIONS, 0.1234), "ceiling": dict.fromkeys(DIMENSIONS, 0.9876)},
        "student_vs_teacher": {
            "all_attributes_ratio": 0.988,
            "speedup": 27.4,
            "all_attributes_difference": -0.012,
            "all_attributes_interval": [-0.034, 0.01],
        },
        "window_frames": 12,
        "clips": 96,
    }


def scraps() -> list[dict[str, Any]]:
    """Metrics with ever less in them."""
    whole = metrics_like_a_run()
    bare = {arm: {"all_attributes": score} for arm, score in SCORES.items()}
    holes: dict[str, Any] = {**whole, "teacher": {**whole["teacher"], "seconds_per_clip": None, "total": float("nan")}}
    holes["student"] = {"drift": [0.9, None], "all_attributes": 0.9, "seconds_per_clip": 0.0}
    return [bare, holes, {arm: whole[arm] for arm in ("real", "student")}, {}]


def comparison(prompts: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Drawn clips with an arm's worth of noise each."""
    clips = draw(World(), 0, "test_report", 0, range(prompts))
    dice = torch.Generator().manual_seed(0)
    amounts = dict(zip(TITLES, (0.0, 0.02, 0.2, 0.05, 0.02), strict=True))
    noise = {arm: torch.randn(clips.video.shape, generator=dice) * amount for arm, amount in amounts.items()}
    return {arm: clips.video + noise[arm] for arm in TITLES}, clips.prompts


def text_of(metrics: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(closing_table(metrics))
    return console.export_text()


def test_sheet_loops_at_its_pace_and_is_small(tmp_path: Path) -> None:
    videos, prompts = comparison(6)
    comparison_sheet(videos, prompts, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.gif").stat().st_size < 1.5e6
    with Image.open(tmp_path / "sheet.gif") as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        assert gif.info["loop"] == 0 and len(durations) == 12 and sum(durations) == 1500
    with Image.open(tmp_path / "sheet.png") as strip:
        assert strip.width > strip.height


def test_sheet_takes_broken_clips_and_long_prompts(tmp_path: Path) -> None:
    videos, prompts = comparison(2)
    videos["student"] = torch.full_like(videos["student"], float("nan"))
    videos["student"][0] = 7.0
    wordy = [prompts[0] * 20, "x" * 500]
    comparison_sheet(videos, wordy, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    comparison_sheet(videos, wordy, 8, tmp_path / "again.gif", tmp_path / "again.png")
    assert (tmp_path / "sheet.gif").read_bytes() == (tmp_path / "again.gif").read_bytes()
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_report_is_one_page_that_opens_offline(tmp_path: Path) -> None:
    videos, prompts = comparison(2)
    comparison_sheet(videos, prompts, 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    write_report(metrics_like_a_run(), tmp_path)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"scores.png", "drift.png", "speed.png"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 4 and all(source.startswith("data:image/") for source in sources)
    assert "http:" not in page and "https:" not in page and "url(" not in page
    body = re.sub(r"<[^>]+>", "", page.split("<body>")[1]).strip()
    assert body.splitlines()[0] == FIRST_LINE
    for number in ("0.957", "27.4", "0.1234", "0.9876", "0.25", "42 ms", "-0.012", "0.310"):
        assert number in body, number


@pytest.mark.parametrize("metrics", scraps(), ids=["bare", "holes", "two-arms", "nothing"])
def test_missing_numbers_are_dashes(metrics: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_report(metrics, tmp_path)
    assert "–" in (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    show_results(tmp_path)
    shown = capsys.readouterr().out
    assert "–" in shown and "nan" not in shown.lower()


def test_table_shows_the_numbers() -> None:
    shown = text_of(metrics_like_a_run())
    assert "96 clips an arm" in shown
    student = next(line for line in shown.splitlines() if "student" in line)
    for number in ("0.957", "0.019", "0.042", " 5.00 "):
        assert number in student, number
    real = next(line for line in shown.splitlines() if line.lstrip().startswith("real "))
    assert real.count("–") == 3, "real clips are drawn, they cost no network"
    narrow = text_of(metrics_like_a_run(), 80)
    assert "evaluations" in narrow and "0.042" in narrow and "…" not in narrow, "all columns fit 80 characters"


def test_results_say_where_to_look(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics_like_a_run()))
    show_results(tmp_path)
    shown = capsys.readouterr().out
    assert "student: 0.988 of the teacher's score, 27.4 times faster, first block 42 ms" in shown
    assert "0.94  0.25  0.31" in shown
    assert "(in the last: digit 0.91, colour 0.99, motion 0.27)" in shown
    for place in ("sheet.gif", "report.html", "plots/", "dvc plots show"):
        assert place in shown, place


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_no_metrics_is_one_line(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(FilmstillError, match=r"metrics\.json: .*dvc repro") as told:
        show_results(tmp_path)
    assert "\n" not in str(told.value)


def test_results_command_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["results"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_labels_keep_their_distance() -> None:
    assert spread([0.85, 0.95, 0.0], 0.14) == pytest.approx([0.81, 0.95, 0.0])
    assert spread([], 0.14) == []
