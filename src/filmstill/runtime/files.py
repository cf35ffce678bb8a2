"""Atomic files: written to a temporary name in the same folder, flushed to disk, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError, writing_failed


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` if the block raises nothing.

    Raises FilmstillError if the system refuses the write; the old file at `path` is then unchanged.
    """
    path = Path(path)
    # The name is random: processes on several machines may write here and share a pid.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        with suppress(OSError):  # a read-only file system refuses to remove even what is not there
            temporary.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write `text` atomically as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write `value` atomically as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises FilmstillError for a missing or unreadable file and for any other JSON value."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FilmstillError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise FilmstillError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise FilmstillError(f"{path}: a JSON {type(value).__name__}, an object is needed")
    return value


def copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy a folder file by file. Unlike `shutil.copytree`, it raises the system's own OSError."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            there.mkdir(exist_ok=True)
        elif not path.name.endswith(".tmp"):  # left by a write that was killed
            copy(path, there)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
