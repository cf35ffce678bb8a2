"""Files that the user provides for a run: released weights and prompts."""

import os
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.formats.release import Release, find_networks
from filmstill.params.schema import Params
from filmstill.params.teacher import NOTHING
from filmstill.params.world import OPEN
from filmstill.prompts.text_file import TABLE, check_file

RELEASED_PROMPTS = "vidprom_filtered_extended.txt"


def check_required_files(params: Params) -> None:
    """Raise FilmstillError for the first missing file, with the way to get it."""
    if params.world.name == OPEN:
        Release.find(Path(params.teacher.released))
        if params.teacher.real_score != NOTHING:
            find_networks(Path(params.teacher.real_score))
    raw = Path(params.prompts.raw)
    if not os.path.exists(raw):  # unlike Path.exists, also for a path that is too long
        get = f"; hf download gdhe17/Self-Forcing {raw.name} --local-dir {raw.parent}"
        raise FilmstillError(f"prompts.raw: {raw}: no such file{get if raw.name == RELEASED_PROMPTS else ''}")
    check_file(raw, TABLE, may_be_empty=True)  # `check` reads it too, `profile` only looks
