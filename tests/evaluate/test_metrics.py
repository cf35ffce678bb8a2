"""metrics.json of another shape, and with holes, as `python -m filmstill results` shows it."""

import json
from pathlib import Path
from typing import Any

import pytest

from filmstill.__main__ import main
from filmstill.evaluate.results_table import show_results

WINDOWS = "a list with a number per window"
PAIR = "two numbers, the least and the most"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"student": 3}, "student: is 3, allowed: an object"),
        ({"teacher": None}, "teacher: is None, allowed: an object"),
        ({"bench": []}, "bench: is [], allowed: the name of a bench"),
        ({"window_frames": "12"}, "window_frames: is '12', allowed: a number of frames"),
        ({"student_vs_teacher": []}, "student_vs_teacher: is [], allowed: an object"),
        ({"student_vs_teacher": {"speedup_range": [1, 2, 3]}}, f"speedup_range: is [1, 2, 3], allowed: {PAIR}"),
        ({"student_vs_teacher": {"speedup_range": 5}}, f"student_vs_teacher.speedup_range: is 5, allowed: {PAIR}"),
        ({"student": {"drift": 3}}, f"student.drift: is 3, allowed: {WINDOWS}"),
        ({"student": {"drift_of": []}}, "student.drift_of: is [], allowed: an object"),
        ({"student": {"drift_of": {"motion": 3}}}, f"student.drift_of.motion: is 3, allowed: {WINDOWS}"),
    ],
)
def test_metrics_of_another_shape_are_one_line(
    content: object, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/evaluate").mkdir(parents=True)
    for bench in ("digits", "open"):
        (tmp_path / "data/evaluate/metrics.json").write_text(json.dumps({"bench": bench, **content}))
        assert main(["results"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("filmstill: data/evaluate/metrics.json: ") and error.count("\n") == 1
        assert error.endswith(f"{line}; run `dvc repro` to write it again\n")


@pytest.mark.parametrize("change", [{}, {"student": {}}, {"student_vs_teacher": {"speedup_range": None}}, {"x": 3}])
def test_metrics_with_holes_have_a_table_of_either_bench(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for bench in ("digits", "open"):
        (tmp_path / "metrics.json").write_text(json.dumps({"bench": bench, **change}))
        show_results(tmp_path)
        assert "times faster than its teacher, " in capsys.readouterr().out
