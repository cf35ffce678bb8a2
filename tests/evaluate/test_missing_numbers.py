"""Incomplete metrics: a number that is missing is a dash, in the terminal and on the page."""

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from filmstill.evaluate.metrics import LONG_TITLES, TITLES
from filmstill.evaluate.page import write_report
from filmstill.evaluate.results_table import show_results
from filmstill.evaluate.symbols_bench import SYMBOLS_BENCH
from run_metrics import DIMENSIONS, SCORES, bare, two_arms, with_holes

ARM_TITLES = list(TITLES.values())
ROWS = [name.replace("_", " ") for name in ("all_attributes", "total", *DIMENSIONS)]  # of the table of dimensions
GROUP_ROWS = ["entropy", "all right, colour open", "all right, held-out combinations"]  # of the groups beside main
IN_THE_TABLE = "clips per arm in the table. Student minus teacher, all right, paired by prompt:"
NOT_COMPARED = f"– {IN_THE_TABLE} – (95 % interval – to –)."
NO_LINES = [
    "held-out combinations: – of the teacher's score",
    "entropy of colours left open: – of the teacher's, – of real clips'; all right – of these clips (teacher –)",
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
            "entropy of colours left open: 0.655 (0.550 to 0.770) of the teacher's, – of real clips'; all right – of "
            "these clips (teacher 0.969)",
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
        [NO_LINES[0], NO_LINES[1].replace("all right –", "all right 0.957"), NO_LINES[2]],
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
