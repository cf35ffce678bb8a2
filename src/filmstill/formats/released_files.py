"""Files of a release that are not what their names promise: one message for all of them, and the reader of its JSON.

Without torch, since `check` reads every released file.
"""

import json
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.runtime.file_kind import AGAIN, Fault, first_bytes, foreign_fault, why_missing

WEIGHTS = "a whole .safetensors, .pt or .pth"


def refusal(path: Path, fault: Fault, allowed: str = WEIGHTS) -> FilmstillError:
    """FilmstillError for a file that is not what its name promises."""
    return FilmstillError(f"{path}: {fault.what}, allowed: {allowed}; {fault.remedy}")


def read_released_json(path: Path, allowed: str = "a whole JSON object") -> dict[str, Any]:
    """Read a JSON object of a release. Raises FilmstillError, with the kind and the remedy, for any other file."""
    if not path.is_file():
        raise FilmstillError(f"{path}: missing{why_missing(path)}; {AGAIN}")
    start = first_bytes(path)
    if not start.lstrip().startswith((b"{", b"[")):
        raise refusal(path, foreign_fault(start, path.stat().st_size), allowed)
    try:
        value = json.loads(path.read_bytes())
    except RecursionError:
        raise refusal(path, Fault("is JSON nested too deeply"), allowed) from None
    except ValueError as error:
        raise refusal(path, Fault(f"is damaged or truncated JSON ({error})"), allowed) from None
    if not isinstance(value, dict):
        raise refusal(path, Fault("is a JSON list"), allowed)
    return value
