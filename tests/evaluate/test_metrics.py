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
        ({"stream": []}, "stream: is [], allowed: an object"),
        ({"picture": 1}, "picture: is 1, allowed: an object"),
        ({"prompt_change": {"before_interval": 1}}, f"prompt_change.before_interval: is 1, allowed: {PAIR}"),
        ({"stream": {"mean_window_interval": 0.9}}, f"stream.mean_window_interval: is 0.9, allowed: {PAIR}"),
        ({"stream": {"by_window": []}}, "stream.by_window: is [], allowed: an object"),
        ({"stream": {"by_window": {"motion": 3}}}, f"stream.by_window.motion: is 3, allowed: {WINDOWS}"),
        ({"stream": {"by_offset": 3}}, "stream.by_offset: is 3, allowed: an object"),
        ({"stream": {"by_offset": {"0": 3}}}, "stream.by_offset.0: is 3, allowed: an object"),
        ({"student_vs_real": {"entropy_ratio_interval": [1]}}, f"entropy_ratio_interval: is [1], allowed: {PAIR}"),
    ],
)
def test_metrics_of_another_shape_are_one_line(
    content: object, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/evaluate").mkdir(parents=True)
    for bench in ("symbols", "open"):
        (tmp_path / "data/evaluate/metrics.json").write_text(json.dumps({"bench": bench, **content}))
        assert main(["results"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("filmstill: data/evaluate/metrics.json: ") and error.count("\n") == 1
        assert error.endswith(f"{line}; run `dvc repro` to write it again\n")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"student": {}},
        {"student_vs_teacher": {"speedup_range": None, "held_out_ratio_interval": None}},
        {"stream": {"by_offset": {"0": {}}, "by_window": {}}},
        {"picture": {}, "prompt_change": {"before_interval": None}},
        {"x": 3},
    ],
)
def test_metrics_with_holes_have_a_table_of_either_bench(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for bench in ("symbols", "open"):
        (tmp_path / "metrics.json").write_text(json.dumps({"bench": bench, **change}))
        show_results(tmp_path)
        assert "times faster than its teacher, " in capsys.readouterr().out
