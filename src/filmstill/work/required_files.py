"""Files that the user provides for a run: released weights and prompts."""

from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.formats.release import Release, find_networks
from filmstill.params.schema import Params
from filmstill.params.teacher import NOTHING
from filmstill.params.world import OPEN
from filmstill.work.checkouts import find

RELEASED_PROMPTS = "vidprom_filtered_extended.txt"


def check_required_files(params: Params) -> None:
    """Raise FilmstillError for the first missing file, with the way to get it."""
    if params.world.name == OPEN:
        Release.find(_found(params.teacher.released))
        if params.teacher.real_score != NOTHING:
            find_networks(_found(params.teacher.real_score))
    raw = _found(params.prompts.raw)
    if not raw.is_file():
        get = f"; hf download gdhe17/Self-Forcing {raw.name} --local-dir {raw.parent}"
        raise FilmstillError(f"prompts.raw: {raw}: no such file{get if raw.name == RELEASED_PROMPTS else ''}")


def _found(path: str) -> Path:
    """The path, or that in the checkout from which the stage `provided` will link it."""
    return find(Path(path), Path.cwd()) or Path(path)
