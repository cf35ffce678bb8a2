"""A safetensors file, opened; and what its header says, read without torch, which takes seconds to import."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from filmstill.errors import FilmstillError

HEADER = "filmstill"  # the one metadata key: safetensors writes several in a random order


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file of `save_tensors`, without its tensors: nothing here proves that it is whole."""
    with opened(path, framework="np") as file:
        return metadata_of(file)


@contextmanager
def opened(path: Path, framework: str) -> Iterator[Any]:
    """A safetensors file, its tensors read as they are asked for. framework: what reads them, "pt" for torch, "np".

    Raises FilmstillError as `load_tensors` does.
    """
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; the stage that makes it has not run (dvc repro)")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise FilmstillError(f"{path}: {_what_it_is(path)} ({str(error).splitlines()[0]})") from error


def metadata_of(file: Any) -> dict[str, str]:
    """What the header of an opened file says, its digest included."""
    return json.loads((file.metadata() or {}).get(HEADER, "{}"))


def _what_it_is(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK" or start[:1] == b"\x80":
        return "a pickle (torch.save); only safetensors is read here, a pickle is never opened"
    return "not a whole safetensors file; it is truncated or of another kind"
