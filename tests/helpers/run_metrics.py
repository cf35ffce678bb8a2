"""Metrics of symbols-bench in the shape that the evaluate stage writes, whole and incomplete."""

from typing import Any

from filmstill.evaluate.dimensions import QUALITY, SEMANTIC

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
