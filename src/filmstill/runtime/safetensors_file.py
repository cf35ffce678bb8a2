"""Opening safetensors files and reading their metadata, without importing torch, which takes seconds."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from filmstill.errors import FilmstillError
from filmstill.runtime.file_kind import AGAIN, SAFETENSORS, fault_of, first_bytes, kind_of, why_missing

HEADER = "filmstill"  # the only metadata key: safetensors writes several keys in random order
DTYPES = ("F64", "F32", "BF16", "F16")  # of stored networks, in the order in which the library sorts them in a file


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
    if path.is_dir():
        raise FilmstillError(f"{path}: is a folder, allowed: one .safetensors of filmstill; give the file in it")
    if not path.is_file():
        raise FilmstillError(
            f"{path}: no such file{why_missing(path)}; the stage that makes it has not run (dvc repro)"
        )
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, ValueError) as error:  # not RuntimeError: the block may run out of a GPU's memory
        raise FilmstillError(f"{path}: {_what_it_is(path)} ({str(error).splitlines()[0]})") from error


def metadata_of(file: Any) -> dict[str, str]:
    """Metadata in the header of an opened file, including the digest."""
    return json.loads((file.metadata() or {}).get(HEADER, "{}"))


def _what_it_is(path: Path) -> str:
    """Reason why a file is not readable as safetensors."""
    if kind_of(first_bytes(path)) not in (SAFETENSORS, None):
        convert = "; `python -m filmstill convert` makes safetensors of a released network"
        hint = "" if path.suffix == ".safetensors" else convert
        return f"a pickle (torch.save); only safetensors is read here, a pickle is never opened{hint}"
    fault = fault_of(path)
    if fault is None:
        return "not a whole safetensors file; its header and its tensors do not fit together"
    remedy = "" if fault.remedy == AGAIN else f"; {fault.remedy}"  # a stage's own file was never downloaded
    return f"not a whole safetensors file; it {fault.what}{remedy}"
