"""safetensors files with the SHA-256 of their tensors and metadata in the header.

Loading checks the digest, so truncated and bit-flipped files are detected. A pickle is refused and never opened.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import replacing
from filmstill.runtime.safetensors_file import HEADER, metadata_of, opened

DIGEST = "sha256"


def digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of the metadata and of each tensor's name, dtype, shape and bytes, sorted by name."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors atomically, with a digest in the header. Equal tensors and metadata give equal bytes.

    Raises FilmstillError if the system refuses the write.
    """
    contiguous = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    facts = dict(metadata or {})
    header = json.dumps({**facts, DIGEST: digest_of(contiguous, facts)}, sort_keys=True)
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata={HEADER: header})
        except SafetensorError as error:  # safetensors wraps the system's error
            code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(code, str(error)) from error


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read (tensors, metadata) and check the digest.

    Raises FilmstillError for a missing, truncated or altered file and for anything that is not safetensors.
    """
    path = Path(path)
    with opened(path, "pt") as file:
        metadata = metadata_of(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    expected = metadata.pop(DIGEST, None)
    if expected is None:
        raise FilmstillError(
            f"{path}: has no {DIGEST} in its header; it was not written by filmstill, or is damaged; `python -m "
            "filmstill convert` makes a file of filmstill of a released network"
        )
    if expected != digest_of(tensors, metadata):
        raise FilmstillError(f"{path}: damaged: its content does not have the SHA-256 {expected[:12]}… of its header")
    return tensors, metadata
