"""What the user provides for a run: released weights, prompts, and a git repository."""

import os
import re
from dataclasses import replace
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.formats.release import Release, SymbolsRelease, find_networks
from filmstill.params.prompts import Prompts
from filmstill.params.schema import Params
from filmstill.params.teacher import NOTHING
from filmstill.params.world import OPEN
from filmstill.prompts.text_file import TABLE, check_file
from filmstill.work.checkouts import find_provided

RELEASED_PROMPTS = "vidprom_filtered_extended.txt"


def check_required_files(params: Params) -> None:
    """Raise FilmstillError for the first missing file, with the way to get it."""
    if params.world.name == OPEN:
        Release.find(_found(params.teacher.released))
        if params.teacher.real_score != NOTHING:
            find_networks(_found(params.teacher.real_score))
    elif params.teacher.released != NOTHING:
        SymbolsRelease.find(_found(params.teacher.released))
    raw = _found(params.prompts.raw)
    if not os.path.exists(raw):  # unlike Path.exists, also for a path that is too long
        get = f"; hf download gdhe17/Self-Forcing {raw.name} --local-dir {raw.parent}"
        raise FilmstillError(f"prompts.raw: {raw}: no such file{get if raw.name == RELEASED_PROMPTS else ''}")
    check_file(raw, TABLE, may_be_empty=True)  # `check` reads it too, `profile` only looks


def provided_prompts(prompts: Prompts) -> Prompts:
    """The section with the files that the stage `provided` will link in place of those that are missing here."""
    raw, extension, words = (str(_found(path)) for path in (prompts.raw, prompts.extension, prompts.unsafe_words))
    return replace(prompts, raw=raw, extension=extension, unsafe_words=words)


def check_releases(params: Params) -> None:
    """Raise FilmstillError for releases that the teacher stage would refuse. It takes seconds: torch is imported."""
    if params.teacher.released == NOTHING:
        return
    teacher = replace(params.teacher, released=str(_found(params.teacher.released)))
    if params.world.name == OPEN:
        from filmstill.formats.import_release import check_release

        score = teacher.real_score if teacher.real_score == NOTHING else str(_found(teacher.real_score))
        check_release(replace(teacher, real_score=score), params.model)
    else:
        from filmstill.formats.symbols_release import check_symbols

        check_symbols(teacher, params.model, params.schedule, params.world)


def check_git() -> None:
    """Raise FilmstillError where the sources are in no git repository, as those of an archive, and DVC needs one."""
    root = Path.cwd()
    configs = [path for path in (root / ".dvc/config", root / ".dvc/config.local") if path.is_file()]
    settings = "\n".join(path.read_text("utf-8", "replace") for path in configs)
    if re.search(r"(?m)^\s*no_scm\s*=\s*true", settings):
        return  # a choice of the user's
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise FilmstillError(
            f"{root}: is in no git repository, which DVC needs; `git init && git add -A && git commit -m start`, then "
            "`dvc repro`"
        )


def _found(path: str) -> Path:
    """The path, or that in the checkout from which the stage `provided` will link it."""
    return find_provided(Path(path), Path.cwd()) or Path(path)
