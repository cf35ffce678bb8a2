"""Files that a job and the processes that wait for it write for each other. One that is not right counts as absent."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstill.runtime.job_folder import REPORT

LARGEST = 1e18  # above every number that a job reports


@dataclass(frozen=True)
class Progress:
    """What a job has reported of its progress (runtime/progress.py)."""

    label: str
    total: int
    n: float
    unit: str
    unit_scale: bool
    postfix: dict[str, str]


def read_record(path: Path) -> Any:
    """The value in a JSON file; None where it cannot be read: missing, damaged, a folder, or just being replaced."""
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def read_progress(folder: Path) -> Progress | None:
    """The progress that the job of a submission's folder has reported; None where it has not."""
    match read_record(folder / REPORT):
        case {
            "label": str(label),
            "total": int(total),
            "n": int() | float() as n,
            "unit": str(unit),
            "unit_scale": bool(unit_scale),
            "postfix": dict(postfix),
        } if _is_number(total) and _is_number(n) and all(isinstance(value, str) for value in postfix.values()):
            return Progress(label, total, n, unit, unit_scale, postfix)
    return None


def _is_number(value: float) -> bool:
    return not isinstance(value, bool) and 0 <= value < LARGEST  # NaN is not
