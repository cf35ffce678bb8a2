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
    temporary = temporary_path(path)
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


def temporary_path(path: Path) -> Path:
    """A new hidden name beside `path` that ends in .tmp.

    It is short, so that the longest name that a file system allows has a temporary one, too; it is random, since
    processes on several machines may write here and share a pid.
    """
    return path.with_name(f".{path.name[:20]}.{os.urandom(8).hex()}.tmp")


def require_writable(path: Path, folder: bool = False) -> None:
    """Raise FilmstillError unless a file (or a `folder`) could be written at `path`; nothing is left behind.

    A command calls it before it computes what it will write. An existing file, or an existing folder where a folder is
    to be written, is accepted: whether it may be replaced is the caller's decision.
    """
    made, other = ("a folder", "a file") if folder else ("a file", "a folder")
    try:
        if path.exists() and not (path.is_dir() if folder else path.is_file()):
            kind = other if path.is_dir() or path.is_file() else "a device"
            raise FilmstillError(f"{path}: is {kind}, allowed: the name of {made}; choose another name")
        # A link that leads nowhere occupies its name, too: no folder can be made there.
        parent = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        for needed in (parent, path) if folder else (parent,):
            if needed.is_symlink() and not needed.exists():
                raise FilmstillError(
                    f"{path}: cannot be written: {needed} is a link to {needed.readlink()}, which does not exist; make "
                    "that folder or choose another"
                )
        if not parent.is_dir():
            raise FilmstillError(
                f"{path}: cannot be written: {parent} is a file, allowed: a folder; choose another folder"
            )
        longest = os.pathconf(parent, "PC_NAME_MAX")
        if too_long := [part for part in path.parts if len(os.fsencode(part)) > longest]:
            raise FilmstillError(
                f"{path}: cannot be written: a name of {len(os.fsencode(too_long[0]))} bytes, allowed: at most "
                f"{longest} in {parent}; choose a shorter one"
            )
        probe = temporary_path(parent / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise writing_failed(path, error) from error


def write_text(path: Path | str, text: str) -> None:
    """Write `text` atomically as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write `value` atomically as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises FilmstillError for a missing file and for any other content.

    An OSError of another kind passes through: a disk that does not answer says nothing about the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FilmstillError(f"{path}: no such file") from None
    except (IsADirectoryError, NotADirectoryError) as error:
        raise FilmstillError(f"{path}: cannot be read as JSON ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
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


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; a missing one is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
