"""A checkpoint's folder: where it is written, its manifest, how it is verified and removed."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.runtime import distributed
from filmstill.runtime.files import sha256_of

MANIFEST = "checkpoint.json"  # the SHA-256 of each part by its file's name


def unfinished(path: Path) -> Path:
    """Where a checkpoint is written, so that at its own name it is whole or absent."""
    return path.with_name(f".{path.name}.tmp")


def remove(path: Path) -> None:
    """Remove a checkpoint's folder, at once to whoever looks for it."""
    away = path.with_name(f".{path.name}.old.tmp")
    with suppress(FileNotFoundError):
        path.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def missing_part(path: Path) -> str | None:
    """Which part is not there, to the first process: to another node's eyes it may only be late."""
    if not distributed.is_rank0():
        return None
    with suppress(ValueError, OSError):  # of a manifest that `damage` looks at
        gone = sorted(name for name in json.loads((path / MANIFEST).read_text()) if not (path / name).exists())
        return f"{path / gone[0]}: damaged: it is not there" if gone else None
    return None


def damage(path: Path) -> str | None:
    """What is wrong with this process's share of the parts; None: nothing."""
    try:
        files = json.loads((path / MANIFEST).read_text())
        for name in sorted(files)[distributed.rank() :: distributed.world_size()]:
            if sha256_of(path / name) != files[name]:
                return f"{path / name}: damaged: its SHA-256 is not the {files[name][:12]}… of {MANIFEST}"
    except ValueError as error:
        return f"{path / MANIFEST}: damaged: {error}"
    except OSError as error:  # of the disk or of its mount: no reason to give up a checkpoint
        raise FilmstillError(
            f"{error.filename or path}: cannot be read here ({error.strerror}); run it again"
        ) from None
    return None
