"""A checkpoint's folder: its temporary name, its manifest, its record of the training, verification and removal."""

import errno
import re
import shutil
from contextlib import suppress
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.runtime import distributed
from filmstill.runtime.files import copy_tree, read_json, remove, sha256_of, write_json

MANIFEST = "checkpoint.json"  # its step, the work folder that it is of, and the SHA-256 of each file by name
DIGEST = ".sha256"  # suffix of a file that holds the digest of the shard beside it
RECORD = "record"  # what the training has shown so far, by folder of the work folder: a resumed run goes on from it
SHOWN = ("curves", "sheets")


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's name; None for another folder."""
    found = re.fullmatch(r"step-(\d{7,18})", path.name)
    return int(found[1]) if found else None


def write_record(work: Path, folder: Path) -> None:
    """Copy curves and sheets of a work folder into the temporary folder of a checkpoint."""
    for name in SHOWN:
        if (work / name).is_dir():
            copy_tree(work / name, folder / RECORD / name)


def restore_record(work: Path, checkpoint: Path | None) -> None:
    """Replace curves and sheets of a work folder by those of a checkpoint; None: by none.

    They are not trusted as they are found: a file may have been lost or damaged, and later rows are not of this run.
    """
    for name in SHOWN:
        remove(work / name)
    if checkpoint is None:
        return
    for name in _files(checkpoint):
        folder, _, shown = name.partition("/")
        if folder == RECORD:
            (work / shown).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint / name, work / shown)


def write_manifest(folder: Path, target: Path, shards: list[str]) -> None:
    """List the shards and the record in a checkpoint's temporary folder, with their SHA-256.

    target: the folder's final path. A shard's digest was written beside it by its own rank; a missing one fails the
    save. Shards are named, not listed: a shared file system may list another rank's late.
    """
    digests = [(folder / name).with_suffix(DIGEST) for name in shards]
    files = {name: digest.read_text() for name, digest in zip(shards, digests, strict=True)}
    for digest in digests:
        digest.unlink()
    for path in sorted((folder / RECORD).rglob("*")):
        if path.is_file():
            files[str(path.relative_to(folder))] = sha256_of(path)
    write_json(folder / MANIFEST, {"step": step_of(target), "work": _work(target), "files": files})


def unfinished(path: Path) -> Path:
    """The temporary folder in which a checkpoint is written, so that `path` is complete or absent."""
    return path.with_name(f".{path.name}.tmp")


def discard(path: Path) -> None:
    """Remove a checkpoint's folder. It is renamed first, so that no reader finds a part of it."""
    removed = path.with_name(f".{path.name}.old.tmp")
    with suppress(FileNotFoundError):
        path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def missing_part(path: Path) -> str | None:
    """A message about the first missing file, on rank 0; None if all exist.

    Other ranks do not look: a shared file system may show them a new file late.
    """
    if not distributed.is_rank0():
        return None
    with suppress(FilmstillError, OSError):  # `damage` reports an unreadable manifest
        missing = sorted(name for name in _files(path) if not (path / name).exists())
        return f"{path / missing[0]}: missing, though {MANIFEST} lists it" if missing else None
    return None


def damage(path: Path) -> str | None:
    """A message about the first damaged file among those that this rank checks; None if they are good.

    Raises FilmstillError if a file cannot be read here, which is no reason to drop the checkpoint.
    """
    try:
        files = _files(path)
        for name in sorted(files)[distributed.rank() :: distributed.world_size()]:
            if sha256_of(path / name) != files[name]:
                return f"{path / name}: damaged: its SHA-256 is not the {files[name][:12]}… of {MANIFEST}"
    except FilmstillError as error:
        return str(error)
    except (IsADirectoryError, NotADirectoryError) as error:
        return f"{error.filename}: damaged: {error.strerror}"
    except OSError as error:  # the disk or its mount may be at fault
        raise FilmstillError(
            f"{error.filename or path}: cannot be read here ({error.strerror}); run it again"
        ) from None
    return None


def _files(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint, by name. Raises FilmstillError for a manifest of another checkpoint."""
    if not (path / MANIFEST).exists():  # it was there a moment ago: a shared file system may show it late here
        raise FileNotFoundError(errno.ENOENT, "not visible here", str(path / MANIFEST))
    manifest = read_json(path / MANIFEST)
    if (manifest.get("step"), manifest.get("work")) != (step_of(path), _work(path)):
        raise FilmstillError(f"{path / MANIFEST}: is of another checkpoint: of step {manifest.get('step')}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise FilmstillError(f"{path / MANIFEST}: damaged: it lists no files")
    return files


def _work(path: Path) -> str:
    """Name of the work folder of a checkpoint, which is its key."""
    return path.resolve().parents[1].name
