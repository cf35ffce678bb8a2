"""The results table and the page, from complete metrics and from none."""

import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from filmstill.__main__ import main
from filmstill.errors import FilmstillError
from filmstill.evaluate.page import write_report
from filmstill.evaluate.plots import spread
from filmstill.evaluate.results_table import SYMBOLS_TABLE, show_results
from filmstill.evaluate.sheet import comparison_sheet
from filmstill.evaluate.symbols_bench import SYMBOLS_BENCH
from run_metrics import SCORES, metrics_like_a_run

CHANGES: dict[str, Any] = {  # metrics of pictures and changing prompts, some of them missing
    "picture": {"prompts": 48, "all_attributes": 0.958, "all_attributes_interval": [0.896, 1.0], "strict": 0.938},
    "prompt_change": {
        "prompts": 48,
        "change_frame": 24,
        "within_3_blocks": 0.917,
        "within_3_blocks_interval": [0.813, 0.979],
        "stay_right": 0.854,
        "stay_right_interval": [0.75, 0.938],
        "later_mean": 0.912,
        "later_mean_interval": [0.85, 0.96],
        "later_worst": 0.875,
        "later_worst_interval": [0.771, 0.958],
    },
}
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


def test_results_show_pictures_and_changes_of_prompt_where_they_were_made(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "metrics.json").write_text(json.dumps(metrics_like_a_run() | CHANGES))
    show_results(tmp_path)
    shown = capsys.readouterr().out
    rows = [line.split("  ") for line in shown.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    for row in (
        ["clips that begin with a picture", "0.958", "0.896 to 1.000"],
        ["... and keep its phase", "0.938", "–"],
        ["windows before the change, first prompt", "–", "–"],
        ["streams right within 3 blocks of it, new prompt", "0.917", "0.813 to 0.979"],
        ["... and in every window from then on", "0.854", "0.750 to 0.938"],
        ["windows from then on, their mean", "0.912", "0.850 to 0.960"],
        ["the worst of them", "0.875", "0.771 to 0.958"],
    ):
        assert row in cells
    assert "from a picture, 48 prompts: all right and in its phase 0.938\n" in shown
    assert (
        "prompt changed at frame 24, 48 prompts: the new one right within 3 blocks in 0.917 (0.813 to 0.979), and in "
        "every window from then on in 0.854 (0.750 to 0.938); of the streams, 0.875 are right in the worst of these "
        "windows, 0.912 in the mean one\n"
    ) in shown
    assert f"prompts that change: {tmp_path}/plots/changed_streams.gif, " in shown
    write_report(SYMBOLS_BENCH, metrics_like_a_run() | CHANGES, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>From a picture, and prompts that change</h2>" in page and "0.813 to 0.979" in page
    assert (tmp_path / "plots/prompt_change.png").is_file()
    assert "picture" not in text_of(metrics_like_a_run()) and len(SYMBOLS_TABLE.further(metrics_like_a_run())) == 1


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
