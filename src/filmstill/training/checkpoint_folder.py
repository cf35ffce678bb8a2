"""A checkpoint's folder: its temporary name, its manifest, verification and removal."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.runtime import distributed
from filmstill.runtime.files import sha256_of

MANIFEST = "checkpoint.json"  # SHA-256 of each shard by file name


def unfinished(path: Path) -> Path:
    """The temporary folder in which a checkpoint is written, so that `path` is complete or absent."""
    return path.with_name(f".{path.name}.tmp")


def remove(path: Path) -> None:
    """Remove a checkpoint's folder. It is renamed first, so that no reader finds a part of it."""
    removed = path.with_name(f".{path.name}.old.tmp")
    with suppress(FileNotFoundError):
        path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def missing_part(path: Path) -> str | None:
    """A message about the first missing shard, on rank 0; None if all exist.

    Other ranks do not look: a shared file system may show them a new file late.
    """
    if not distributed.is_rank0():
        return None
    with suppress(ValueError, OSError):  # `damage` reports an unreadable manifest
        missing = sorted(name for name in json.loads((path / MANIFEST).read_text()) if not (path / name).exists())
        return f"{path / missing[0]}: missing, though {MANIFEST} lists it" if missing else None
    return None


def damage(path: Path) -> str | None:
    """A message about the first damaged shard among those that this rank checks; None if they are good.

    Raises FilmstillError if a file cannot be read here, which is no reason to drop the checkpoint.
    """
    try:
        files = json.loads((path / MANIFEST).read_text())
        for name in sorted(files)[distributed.rank() :: distributed.world_size()]:
            if sha256_of(path / name) != files[name]:
                return f"{path / name}: damaged: its SHA-256 is not the {files[name][:12]}… of {MANIFEST}"
    except ValueError as error:
        return f"{path / MANIFEST}: damaged: {error}"
    except OSError as error:  # the disk or its mount may be at fault
        raise FilmstillError(
            f"{error.filename or path}: cannot be read here ({error.strerror}); run it again"
        ) from None
    return None
