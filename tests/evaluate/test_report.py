"""The results table and the page, from complete and from incomplete metrics."""

import html
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from filmstill.__main__ import main
from filmstill.errors import FilmstillError
from filmstill.evaluate.digits_bench import DIGITS_BENCH
from filmstill.evaluate.dimensions import QUALITY, SEMANTIC
from filmstill.evaluate.metrics import LONG_TITLES, TITLES
from filmstill.evaluate.page import write_report
from filmstill.evaluate.plots import spread
from filmstill.evaluate.results_table import DIGITS_TABLE, show_results
from filmstill.evaluate.sheet import comparison_sheet

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
            "speedup_range": [25.1, 28.0],
            "all_attributes_difference": -0.012,
            "all_attributes_interval": [-0.034, 0.01],
        },
        "window_frames": 12,
        "clips": 96,
    }


def bare() -> dict[str, Any]:
    """Metrics with nothing but one score per arm."""
    return {arm: {"all_attributes": score} for arm, score in SCORES.items()}


def with_holes() -> dict[str, Any]:
    """Metrics with single numbers missing: the teacher's seconds and total, and most of the student's."""
    whole = metrics_like_a_run()
    teacher = {**whole["teacher"], "seconds_per_clip": None, "total": float("nan")}
    student = {"drift": [0.9, None], "all_attributes": 0.9, "seconds_per_clip": 0.0}
    return {**whole, "teacher": teacher, "student": student}


def two_arms() -> dict[str, Any]:
    """Metrics of two arms and nothing else."""
    return {arm: metrics_like_a_run()[arm] for arm in ("real", "student")}


TIMING_NOTE = (
    'times: "teacher\'s weights, causal, not distilled" and "ODE init" show the student\'s, measured once: they '
    "are the same network with other weights, in as many passes"
)


def text_of(metrics: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(DIGITS_TABLE.for_terminal(metrics))
    return console.export_text()


def test_report_is_one_page_that_opens_offline(tmp_path: Path) -> None:
    clips = {"student": torch.zeros(1, 2, 3, 32, 32)}
    comparison_sheet(clips, ["a prompt"], 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    write_report(DIGITS_BENCH, metrics_like_a_run(), tmp_path)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"scores.png", "drift.png", "speed.png"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert f'</table></div>\n<p class="note">{TIMING_NOTE}</p>' in html.unescape(page)
    assert len(sources) == 4 and all(source.startswith("data:image/") for source in sources)
    assert "http:" not in page and "https:" not in page and "url(" not in page
    body = re.sub(r"<[^>]+>", "", page.split("<body>")[1]).strip()
    assert body.splitlines()[0] == DIGITS_BENCH.page_warning
    for number in ("0.957", "27.4", "0.1234", "0.9876", "0.25", "42 ms", "-0.012", "0.310"):
        assert number in body, number


ARM_TITLES = list(TITLES.values())
ROWS = [name.replace("_", " ") for name in ("all_attributes", "total", *DIMENSIONS)]  # of the table of dimensions
NOT_COMPARED = "Student minus teacher, all right, paired by prompt: – (95 % interval – to –)."


@dataclass
class Shown:
    """What must be shown of incomplete metrics: `cells` of the results table by arm, lines, and where dashes are.

    dimensions: dashes of the table of dimensions by row and arm. diversity: arms. bounds: whether floors and ceilings
    are dashes.
    """

    metrics: dict[str, Any]
    cells: dict[str, str]
    headline: str
    drift_line: str
    note: str
    dimensions: set[tuple[str, str]]
    diversity: set[str]
    bounds: bool


SHOWN = {
    "bare": Shown(
        bare(),
        {
            "real": "0.979 – – – – – – –",
            "teacher": "0.969 – – – – – – –",
            "undistilled": "0.011 – – – – – – –",
            "init": "0.851 – – – – – – –",
            "student": "0.957 – – – – – – –",
        },
        "student: – of the teacher's score, – times faster than its teacher, first block – ms",
        "drift: all right per window of 12 frames of a long stream: –",
        f"– clips per arm. {NOT_COMPARED}",
        {(row, arm) for row in ROWS if row != "all attributes" for arm in ARM_TITLES},
        set(ARM_TITLES),
        bounds=True,
    ),
    "holes": Shown(
        with_holes(),
        {
            "real": "0.979 0.979 0.979 0.979 0.979 – – –",
            "teacher": "0.969 0.969 0.969 0.969 – 96.00 – 0.498",
            "undistilled": "0.011 0.011 0.011 0.011 0.011 5.00 0.019 0.042",
            "init": "0.851 0.851 0.851 0.851 0.851 5.00 0.019 0.042",
            "student": "0.900 – – – – – 0.000 –",
        },
        "student: 0.988 of the teacher's score, 27.4 times faster than its teacher (25.1 to 28.0), first block – ms",
        "drift: all right per window of 12 frames of a long stream: 0.90  –",
        "96 clips per arm. Student minus teacher, all right, paired by prompt: -0.012 (95 % interval -0.034 to 0.010).",
        {("total", "teacher")} | {(row, "student") for row in ROWS if row != "all attributes"},
        {"student"},
        bounds=False,
    ),
    "two arms": Shown(
        two_arms(),
        {
            "real": "0.979 0.979 0.979 0.979 0.979 – – –",
            "teacher": "– – – – – – – –",
            "undistilled": "– – – – – – – –",
            "init": "– – – – – – – –",
            "student": "0.957 0.957 0.957 0.957 0.957 5.00 0.019 0.042",
        },
        "student: – of the teacher's score, – times faster than its teacher, first block 42 ms",
        "drift: all right per window of 12 frames of a long stream: 0.94  0.25  0.31  0.25  0.22 "
        "(in the last: digit 0.91, colour 0.99, motion 0.27)",
        f"– clips per arm. {NOT_COMPARED}",
        {(row, arm) for row in ROWS for arm in ("teacher", "undistilled", "ODE init")},
        {"teacher", "undistilled", "ODE init"},
        bounds=True,
    ),
    "nothing": Shown(
        {},
        dict.fromkeys(TITLES, "– – – – – – – –"),
        "student: – of the teacher's score, – times faster than its teacher, first block – ms",
        "drift: all right per window of 12 frames of a long stream: –",
        f"– clips per arm. {NOT_COMPARED}",
        {(row, arm) for row in ROWS for arm in ARM_TITLES},
        set(ARM_TITLES),
        bounds=True,
    ),
}
by_metrics = pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)


@by_metrics
def test_missing_numbers_are_dashes_in_the_terminal(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "metrics.json").write_text(json.dumps(shown.metrics))
    show_results(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    for arm, title in LONG_TITLES.items():
        line = next(line.strip() for line in lines if line.strip().startswith(f"{title} "))
        assert line.removeprefix(title).split() == shown.cells[arm].split()
    assert lines[lines.index(shown.headline) + 1] == shown.drift_line
    dashes = "".join([*shown.cells.values(), shown.headline, shown.drift_line]).count("–")
    assert sum(line.count("–") for line in lines) == dashes and "nan" not in "".join(lines).lower()


@by_metrics
def test_missing_numbers_are_dashes_on_the_page(shown: Shown, tmp_path: Path) -> None:
    write_report(DIGITS_BENCH, shown.metrics, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    results, dimensions, diversity, bounds = (rows_of(table) for table in re.findall(r"<table>.*?</table>", page))
    assert [row[1:] for row in results[1:]] == [shown.cells[arm].split() for arm in TITLES]
    assert {(row[0], arm) for row in dimensions[1:] for arm, cell in zip(dimensions[0][1:], row[1:], strict=True)
            if cell.startswith("–")} == shown.dimensions  # fmt: skip
    assert {arm for arm, cell in zip(diversity[0][1:], diversity[1][1:], strict=True) if cell == "–"} == shown.diversity
    assert [row[1:] for row in bounds[1:]] == [["–", "–"] if shown.bounds else ["0.1234", "0.9876"]] * len(DIMENSIONS)
    assert [row[0] for row in dimensions[1:]] == ROWS and [row[0] for row in bounds[1:]] == ROWS[2:]
    for line in (shown.headline, shown.drift_line, shown.note):
        assert f">{line}</p>" in html.unescape(page)
    sheet = "<p>–</p>"  # there is no sheet.gif
    assert f"every arm.</p>{sheet}" in page and page.count("data:image/png") == 3
    lines = "".join([*shown.cells.values(), shown.headline, shown.drift_line, shown.note, sheet]).count("–")
    cells = len(shown.dimensions) + len(shown.diversity) + 2 * len(DIMENSIONS) * shown.bounds
    assert page.count("–") == lines + cells


def rows_of(table: str) -> list[list[str]]:
    """Text of an HTML table's cells, heading first; small print is left out."""
    table = re.sub(r"<small>.*?</small>", "", table)
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr.*?>(.*?)</tr>", table)
    ]


def test_table_shows_the_numbers() -> None:
    shown = text_of(metrics_like_a_run())
    assert "96 clips per arm" in shown
    student = next(line for line in shown.splitlines() if "student" in line)
    for number in ("0.957", "0.019", "0.042", " 5.00 "):
        assert number in student, number
    real = next(line for line in shown.splitlines() if line.lstrip().startswith("real "))
    assert real.count("–") == 3, "real clips are drawn, they cost no network"
    narrow = text_of(metrics_like_a_run(), 80)
    assert "evaluations" in narrow and "0.042" in narrow and "…" not in narrow, "all columns fit 80 characters"


def test_results_name_the_files_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics_like_a_run()))
    show_results(tmp_path)
    shown = capsys.readouterr().out
    assert (
        "student: 0.988 of the teacher's score, 27.4 times faster than its teacher (25.1 to 28.0), first block 42 ms"
        in shown
    )
    assert "0.94  0.25  0.31" in shown
    assert "(in the last: digit 0.91, colour 0.99, motion 0.27)" in shown
    assert f"\n{TIMING_NOTE}\n" in shown
    for place in ("sheet.gif", "report.html", "plots/", "dvc plots show"):
        assert place in shown, place


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_no_metrics_is_one_line(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(FilmstillError, match=r"metrics\.json: .*dvc repro") as raised:
        show_results(tmp_path)
    assert "\n" not in str(raised.value)


def test_results_command_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["results"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_labels_keep_their_distance() -> None:
    assert spread([0.85, 0.95, 0.0], 0.14) == pytest.approx([0.81, 0.95, 0.0])
    assert spread([], 0.14) == []
