"""Tables at any width: every column is there, no word is cut, and cells are text, not markup."""

import io

import pytest
from rich.console import Console

from filmstill.runtime.text_table import TextTable

CELLS = (
    ("teacher's weights, causal", "0.976", "96.00", "failed: [/tmp/x] in [bold] – twice"),
    ("student", "–", "4.75", ""),
    ("总计 of all", "1.000", "", "NOT SEEN"),
)


def table() -> TextTable:
    made = TextTable("two arms × 3", ["", "all right", "network evaluations per clip", "state"], left=("state",))
    for number, cells in enumerate(CELLS):
        made.add(*cells, bold=number == 1, end_section=number == 1)
    return made


def lines(made: TextTable, width: int, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    Console(width=width, file=file).print(made)
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [200, 100, 80, 60, 50, 40, 30, 20, 15])
def test_every_word_is_shown_whole_at_any_width(width: int):
    shown = lines(table(), width)
    words = " ".join(shown).split()
    expected = ["two", "arms", "×", "3", "all", "right", "network", "evaluations", "per", "clip", "state"]
    for word in expected + [word for row in CELLS for cell in row for word in cell.split()]:
        assert word in words or f"{word}:" in words, (width, word)
    assert max(map(len, shown)) <= width


def test_wide_it_has_one_line_per_row():
    shown = [line.split() for line in lines(table(), 100)]
    assert ["teacher's", "weights,", "causal", "0.976", "96.00", *CELLS[0][3].split()] in shown
    assert ["student", "–", "4.75"] in shown


def test_columns_move_together_before_they_become_lines():
    shown = lines(table(), 38)
    (student,) = (line.split() for line in shown if "student" in line)
    assert student == ["student", "–", "4.75"] and max(map(len, shown)) == 38


def test_narrow_it_has_one_line_per_cell():
    assert lines(table(), 37) == [
        "two arms × 3",
        "",
        "teacher's weights, causal",
        "  all right: 0.976",
        "  network evaluations per clip: 96.00",
        "  state: failed: [/tmp/x] in [bold] –",
        "  twice                              ",
        "",
        "student",
        "  all right: –",
        "  network evaluations per clip: 4.75",
        "",
        "总计 of all",
        "  all right: 1.000",
        "  state: NOT SEEN",
    ]


def test_a_longer_word_than_the_terminal_is_folded_not_dropped():
    made = TextTable("", ["node", "host"])
    made.add("n", "x" * 30)
    assert "".join(lines(made, 12)).replace(" ", "") == "node:nhost:" + "x" * 30


@pytest.mark.parametrize("width", [100, 40])
def test_in_ascii_the_widths_stay_right(width: int):
    made = TextTable("two × 3", ["", "all right"])
    made.add("student …", "–")
    shown = lines(made, width, "ascii")
    assert "two x 3" in shown[0] and any("student ..." in line for line in shown) and "-" in shown[-2] + shown[-1]
