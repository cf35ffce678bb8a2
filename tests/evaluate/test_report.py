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
from filmstill.evaluate.dimensions import QUALITY, SEMANTIC
from filmstill.evaluate.metrics import LONG_TITLES, TITLES
from filmstill.evaluate.page import write_report
from filmstill.evaluate.plots import spread
from filmstill.evaluate.results_table import SYMBOLS_TABLE, show_results
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.evaluate.symbols_bench import SYMBOLS_BENCH

DIMENSIONS = (*SEMANTIC, *QUALITY)
ATTRIBUTES = ("symbol", "colour", "motion")
SCORES = {"real": 0.979, "teacher": 0.969, "undistilled": 0.011, "init": 0.851, "student": 0.957}


def metrics_like_a_run() -> dict[str, Any]:
    """The shape that the evaluate stage writes."""
    arms = {}
    for arm, score in SCORES.items():
        names = (*DIMENSIONS, "all_attributes", "total")
        arms[arm] = {
            **dict.fromkeys(("all_attributes", *ATTRIBUTES, "total", "quality", "semantic"), score),
            "fidelity": 28 * score,
            "entropy": 0.8 * score,
            "entropy_interval": [0.71 * score, 0.84 * score],
            "held_out": 0.9 * score,
            "held_out_interval": [0.8 * score, score],
            "open": score,
            "seconds_per_clip": 0.521 if arm == "teacher" else 0.019,
            "evaluations_per_clip": 96.0 if arm == "teacher" else 5.0,
            "first_block_seconds": 0.498 if arm == "teacher" else 0.0417,
            "dimensions": dict.fromkeys(DIMENSIONS, score),
            "intervals": {name: [max(0.0, score - 0.04), min(1.0, score + 0.03)] for name in names},
        }
    return {
        **arms,
        "stream": {
            "prompts": 48,
            "frames": 36,
            "worst_window": 0.25,
            "mean_window": 0.731,
            "phase_kept": 0.22,
            "last_fidelity": 24.5,
            "by_offset": {
                "0": {"worst_window": 0.31, "mean_window": 0.75, "phase_kept": 0.29, "last_fidelity": 24.5},
                "3": {"worst_window": 0.25, "mean_window": 0.7, "phase_kept": 0.22, "last_fidelity": 25.5},
            },
            "by_window": {"all_attributes": [0.94, 0.97, 0.31]},
        },
        "windows": {
            "offset": [0, 3, 0, 3, 0],
            "frame": [12, 15, 24, 27, 36],
            "all_attributes": [0.94, 0.9, 0.97, 0.25, 0.31],
            "all_attributes_low": [0.9, 0.8, 0.9, 0.2, 0.2],
            "all_attributes_high": [1.0, 1.0, 1.0, 0.4, 0.4],
            "phase_kept": [0.94, 0.9, 0.97, 0.22, 0.29],
        },
        "world": {"floor": dict.fromkeys(DIMENSIONS, 0.1234), "ceiling": dict.fromkeys(DIMENSIONS, 0.9876)},
        "student_vs_teacher": {
            "all_attributes_ratio": 0.988,
            "speedup": 27.4,
            "speedup_range": [25.1, 28.0],
            "all_attributes_difference": -0.012,
            "all_attributes_interval": [-0.034, 0.01],
            "held_out_ratio": 0.951,
            "held_out_ratio_interval": [0.9, 1.0],
            "entropy_ratio": 0.655,
            "entropy_ratio_interval": [0.55, 0.77],
        },
        "student_vs_real": {"entropy_ratio": 0.644, "entropy_ratio_interval": [0.54, 0.76]},
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
    student = {"all_attributes": 0.9, "seconds_per_clip": 0.0}
    stream = {"frames": 36, "worst_window": 0.25, "by_offset": {"0": {"worst_window": 0.31}}}
    windows = {name: values[:1] for name, values in whole["windows"].items()}
    return {
        **whole,
        "teacher": teacher,
        "student": student,
        "stream": stream,
        "windows": windows,
        "student_vs_real": {},
    }


def two_arms() -> dict[str, Any]:
    """Metrics of two arms and nothing else."""
    return {arm: metrics_like_a_run()[arm] for arm in ("real", "student")}


TIMING_NOTE = (
    'times: "teacher\'s weights, causal, not distilled" and "ODE init" show the student\'s, measured once: they '
    "are the same network with other weights, in as many passes"
)


def text_of(metrics: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(SYMBOLS_TABLE.for_terminal(metrics))
    return console.export_text()


def test_report_is_one_page_that_opens_offline(tmp_path: Path) -> None:
    clips = {"student": torch.zeros(1, 2, 3, 32, 32)}
    comparison_sheet(clips, ["a prompt"], 8, tmp_path / "sheet.gif", tmp_path / "sheet.png")
    write_report(SYMBOLS_BENCH, metrics_like_a_run(), tmp_path)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"scores.png", "drift.png", "speed.png"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert f'</table></div>\n<p class="note">{TIMING_NOTE}</p>' in html.unescape(page)
    assert len(sources) == 4 and all(source.startswith("data:image/") for source in sources)
    assert "http:" not in page and "https:" not in page and "url(" not in page
    body = re.sub(r"<[^>]+>", "", page.split("<body>")[1]).strip()
    assert body.splitlines()[0] == SYMBOLS_BENCH.page_warning
    for number in ("0.957", "27.4", "0.1234", "0.9876", "0.250", "42 ms", "-0.012", "0.655", "24.50", "0.766"):
        assert number in body, number


ARM_TITLES = list(TITLES.values())
ROWS = [name.replace("_", " ") for name in ("all_attributes", "total", *DIMENSIONS)]  # of the table of dimensions
GROUP_ROWS = ["entropy", "all right, colour open", "all right, held-out combinations"]  # of the groups beside main
IN_THE_TABLE = "clips per arm in the table. Student minus teacher, all right, paired by prompt:"
NOT_COMPARED = f"– {IN_THE_TABLE} – (95 % interval – to –)."
NO_LINES = [
    "held-out combinations: – of the teacher's score",
    "entropy of colours left open: – of the teacher's, – of real clips'",
    "long stream of – frames, – prompts: all right – in the worst window of 12, – in the mean one; – right and still "
    "in their first phase at the end",
]
NO_STREAM = {"all": "– – – –"}


@dataclass
class Shown:
    """What must be shown of incomplete metrics: `cells` of the results table by arm, lines, and where dashes are.

    stream: cells of the long stream's table by offset. dimensions: dashes of the table of dimensions by row and arm.
    groups: arms that are dashes in the table of the groups beside main. bounds: whether floors and ceilings are dashes.
    """

    metrics: dict[str, Any]
    cells: dict[str, str]
    headline: str
    stream: dict[str, str]
    lines: list[str]
    note: str
    dimensions: set[tuple[str, str]]
    groups: set[str]
    bounds: bool


SHOWN = {
    "bare": Shown(
        bare(),
        {arm: f"{score:.3f} – – – – – – – – –" for arm, score in SCORES.items()},
        "student: – of the teacher's score, – times faster than its teacher, first block – ms",
        NO_STREAM,
        NO_LINES,
        NOT_COMPARED,
        {(row, arm) for row in ROWS if row != "all attributes" for arm in ARM_TITLES},
        set(ARM_TITLES),
        bounds=True,
    ),
    "holes": Shown(
        with_holes(),
        {
            "real": "0.979 0.979 0.979 0.979 27.41 0.783 0.881 – – –",
            "teacher": "0.969 0.969 0.969 0.969 27.13 0.775 0.872 96.00 – 0.498",
            "undistilled": "0.011 0.011 0.011 0.011 0.31 0.009 0.010 5.00 0.019 0.042",
            "init": "0.851 0.851 0.851 0.851 23.83 0.681 0.766 5.00 0.019 0.042",
            "student": "0.900 – – – – – – – 0.000 –",
        },
        "student: 0.988 of the teacher's score, 27.4 times faster than its teacher (25.1 to 28.0), first block – ms",
        {"0": "0.310 – – –", "all": "0.250 – – –"},
        [
            "held-out combinations: 0.951 (0.900 to 1.000) of the teacher's score",
            "entropy of colours left open: 0.655 (0.550 to 0.770) of the teacher's, – of real clips'",
            "long stream of 36 frames, – prompts: all right 0.250 in the worst window of 12, – in the mean one; – "
            "right and still in their first phase at the end",
        ],
        f"96 {IN_THE_TABLE} -0.012 (95 % interval -0.034 to 0.010).",
        {("total", "teacher")} | {(row, "student") for row in ROWS if row != "all attributes"},
        {"student"},
        bounds=False,
    ),
    "two arms": Shown(
        two_arms(),
        {
            "real": "0.979 0.979 0.979 0.979 27.41 0.783 0.881 – – –",
            **dict.fromkeys(("teacher", "undistilled", "init"), "– – – – – – – – – –"),
            "student": "0.957 0.957 0.957 0.957 26.80 0.766 0.861 5.00 0.019 0.042",
        },
        "student: – of the teacher's score, – times faster than its teacher, first block 42 ms",
        NO_STREAM,
        NO_LINES,
        NOT_COMPARED,
        {(row, arm) for row in ROWS for arm in ("teacher", "undistilled", "ODE init")},
        {"teacher", "undistilled", "ODE init"},
        bounds=True,
    ),
    "nothing": Shown(
        {},
        dict.fromkeys(TITLES, "– – – – – – – – – –"),
        "student: – of the teacher's score, – times faster than its teacher, first block – ms",
        NO_STREAM,
        NO_LINES,
        NOT_COMPARED,
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
    below = lines.index(shown.headline) + 1
    assert lines[below : below + len(shown.lines)] == shown.lines
    for offset, cells in shown.stream.items():
        assert [offset, *cells.split()] in [line.split() for line in lines]
    dashes = "".join([*shown.cells.values(), *shown.stream.values(), shown.headline, *shown.lines]).count("–")
    assert sum(line.count("–") for line in lines) == dashes and "nan" not in "".join(lines).lower()


@by_metrics
def test_missing_numbers_are_dashes_on_the_page(shown: Shown, tmp_path: Path) -> None:
    write_report(SYMBOLS_BENCH, shown.metrics, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tables = [rows_of(table) for table in re.findall(r"<table>.*?</table>", page)]
    results, stream, dimensions, groups, bounds = tables
    assert {row[0]: " ".join(row[1:]) for row in stream[1:]} == shown.stream
    assert [row[1:] for row in results[1:]] == [shown.cells[arm].split() for arm in TITLES]
    assert {(row[0], arm) for row in dimensions[1:] for arm, cell in zip(dimensions[0][1:], row[1:], strict=True)
            if cell.startswith("–")} == shown.dimensions  # fmt: skip
    assert [row[0] for row in groups[1:]] == GROUP_ROWS
    for row in groups[1:]:
        assert {arm for arm, cell in zip(groups[0][1:], row[1:], strict=True) if cell == "–"} == shown.groups
    assert [row[1:] for row in bounds[1:]] == [["–", "–"] if shown.bounds else ["0.1234", "0.9876"]] * len(DIMENSIONS)
    assert [row[0] for row in dimensions[1:]] == ROWS and [row[0] for row in bounds[1:]] == ROWS[2:]
    for line in (shown.headline, *shown.lines, shown.note):
        assert f">{line}</p>" in html.unescape(page)
    sheets = "<p>–</p>", "<p>–</p>"  # there are neither sheet.gif nor stream.gif
    assert (
        f"every arm.</p>{sheets[0]}" in page
        and f"The student's.</p>{sheets[1]}" in page
        and page.count("data:image/png") == 3
    )
    lines = "".join([*shown.cells.values(), *shown.stream.values(), shown.headline, *shown.lines, shown.note, *sheets])
    cells = len(shown.dimensions) + len(GROUP_ROWS) * len(shown.groups) + 2 * len(DIMENSIONS) * shown.bounds
    assert page.count("–") == lines.count("–") + cells


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
    for number in ("0.957", "26.80", "0.766", "0.861", "0.019", "0.042", " 5.00 "):
        assert number in student, number
    real = next(line for line in shown.splitlines() if line.lstrip().startswith("real "))
    assert real.count("–") == 3, "real clips are drawn, they cost no network"
    narrow = text_of(metrics_like_a_run(), 80)
    assert "fidelity" in narrow and "0.042" in narrow and "…" not in narrow, "all columns fit 80 characters"
    assert len(narrow.splitlines()) < len(SCORES) + 12, "as a table"


def test_results_name_the_files_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(metrics_like_a_run()))
    show_results(tmp_path)
    shown = capsys.readouterr().out
    assert (
        "student: 0.988 of the teacher's score, 27.4 times faster than its teacher (25.1 to 28.0), first block 42 ms"
        in shown
    )
    assert "of the teacher's, 0.644 (0.540 to 0.760) of real clips'" in shown
    assert (
        "long stream of 36 frames, 48 prompts: all right 0.250 in the worst window of 12, 0.731 in the mean one"
        in shown
    )
    offsets = [["0", "0.310", "0.750", "0.290", "24.50"], ["3", "0.250", "0.700", "0.220", "25.50"]]
    stream = [*offsets, ["all", "0.250", "0.731", "0.220", "24.50"]]
    assert [line.split() for line in shown.splitlines() if line.split()[:1] in (["0"], ["3"], ["all"])][-3:] == stream
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
