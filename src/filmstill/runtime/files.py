"""Files that are either whole or absent, and tensors that prove they are the ones that were written.

Notable: every write goes to a temporary name beside its target, is flushed to disk and renamed; a
safetensors file carries the SHA-256 of its tensors and metadata in its header, so that a truncated or
bit-flipped one is told from a good one; a pickle is refused by name and never opened.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from filmstill.errors import FilmstillError, writing_failed

HEADER = "filmstill"  # the one metadata key: safetensors writes several in a random order
DIGEST = "sha256"


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it over `path` when the block ends without an error."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


def write_text(path: Path | str, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_table(path: Path | str, table: pd.DataFrame) -> None:
    """Write a parquet table without its index."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy a folder file by file; `shutil.copytree` would hide the system's reason in a list."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            there.mkdir(exist_ok=True)
        elif not path.name.endswith(".tmp"):  # of a write that was killed
            copy(path, there)


def sha256_of(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata and the tensors' names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors atomically, with a digest in the header. Same tensors and metadata, same bytes."""
    contiguous = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    facts = dict(metadata or {})
    header = json.dumps({**facts, DIGEST: digest_of(contiguous, facts)}, sort_keys=True)
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={HEADER: header})
        except SafetensorError as error:  # safetensors wraps the system's error in its own
            code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(code, str(error)) from error


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read (tensors, metadata) and check the digest.

    Raises FilmstillError for a missing, truncated or altered file and for anything that is not safetensors.
    """
    path = Path(path)
    with opened(path) as file:
        metadata = _metadata(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    expected = metadata.pop(DIGEST, None)
    if expected is None:
        raise FilmstillError(f"{path}: has no {DIGEST} in its header; it was not written by filmstill, or is damaged")
    if expected != digest_of(tensors, metadata):
        raise FilmstillError(f"{path}: damaged: its content does not have the SHA-256 {expected[:12]}… of its header")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file of `save_tensors`, without its tensors: nothing here proves that it is whole."""
    with opened(path) as file:
        return _metadata(file)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, its tensors read as they are asked for. Raises FilmstillError as `load_tensors` does."""
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; the stage that makes it has not run (dvc repro)")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise FilmstillError(f"{path}: {_what_it_is(path)} ({str(error).splitlines()[0]})") from error


def _metadata(file: Any) -> dict[str, str]:
    return json.loads((file.metadata() or {}).get(HEADER, "{}"))


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A parquet table. Raises FilmstillError for a missing or damaged file or one without these columns."""
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; the stage that makes it has not run (dvc repro)")
    try:
        return pd.read_parquet(path, columns=columns)
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise FilmstillError(f"{path}: not a whole parquet table ({str(error).splitlines()[0]})") from error


def _what_it_is(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK" or start[:1] == b"\x80":
        return "a pickle (torch.save); only safetensors is read here, a pickle is never opened"
    return "not a whole safetensors file; it is truncated or of another kind"
