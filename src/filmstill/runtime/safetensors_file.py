"""Opening safetensors files and reading their metadata, without importing torch, which takes seconds."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from filmstill.errors import FilmstillError

HEADER = "filmstill"  # the only metadata key: safetensors writes several keys in random order


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a file written by `save_tensors`. The digest is not checked, so the tensors may be damaged.

    Raises FilmstillError if the file is missing or not safetensors.
    """
    with opened(path, framework="np") as file:
        return metadata_of(file)


@contextmanager
def opened(path: Path, framework: str) -> Iterator[Any]:
    """Open a safetensors file whose tensors are read on access. framework: "pt" for torch, "np" for numpy.

    Raises FilmstillError if the file is missing or not safetensors; a pickle is refused by name and never opened.
    """
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; the stage that makes it has not run (dvc repro)")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, ValueError) as error:  # not RuntimeError: the block may run out of a GPU's memory
        raise FilmstillError(f"{path}: {_what_it_is(path)} ({str(error).splitlines()[0]})") from error


def metadata_of(file: Any) -> dict[str, str]:
    """Metadata in the header of an opened file, including the digest."""
    return json.loads((file.metadata() or {}).get(HEADER, "{}"))


def _what_it_is(path: Path) -> str:
    """Reason why a file is not readable as safetensors, from its first bytes."""
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK" or start[:1] == b"\x80":
        return "a pickle (torch.save); only safetensors is read here, a pickle is never opened"
    return "not a whole safetensors file; it is truncated or of another kind"
