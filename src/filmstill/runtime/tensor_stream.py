"""safetensors written one tensor at a time, and atomic folders.

The header needs shapes and dtypes only, so memory holds one tensor at a time. The bytes are those of the safetensors
library. The digest is computed while writing and then replaces a placeholder of the same length in the header.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from filmstill.errors import writing_failed
from filmstill.runtime.distributed import full_tensor
from filmstill.runtime.files import replacing, temporary_path
from filmstill.runtime.safetensors_file import DTYPES, HEADER
from filmstill.runtime.tensor_files import DIGEST, digest_of

# Dtypes of stored networks and their safetensors names.
STORED = dict(zip((torch.float64, torch.float32, torch.bfloat16, torch.float16), DTYPES, strict=True))

Written = Callable[[int], object]  # called after each write with its number of bytes


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], written: Written) -> None:
    """Write safetensors atomically from a mapping that may read lazily; dtypes are those of STORED."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        stream = _Stream(file, tensors, written)
        stream.write_header(metadata)
        for name in stream:
            _ = stream[name]


def stream_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], written: Written) -> None:
    """Write the same bytes as `tensor_files.save_tensors`, from a mapping that may read lazily.

    A sharded tensor is gathered when it is written: the other ranks must call `full_tensor` on each in order of names.
    """

    def sealed(digest: str) -> dict[str, str]:
        return {HEADER: json.dumps({**metadata, DIGEST: digest}, sort_keys=True)}

    with replacing(path) as temporary, temporary.open("wb") as file:
        stream = _Stream(file, tensors, written)
        stream.write_header(sealed("0" * 64))
        digest = digest_of(stream, metadata)
        stream.write_header(sealed(digest))


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` and rename it to `path` if the block raises nothing.

    `path` must be absent or an empty folder. Raises FilmstillError if the system refuses a write.
    """
    path = path.absolute()
    temporary = temporary_path(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Stream(Mapping[str, Tensor]):
    """Tensors of a file being written, in file order; reading a tensor writes it to its place in the file."""

    def __init__(self, file: BinaryIO, tensors: Mapping[str, Tensor], written: Written) -> None:
        self.file, self.tensors, self.written = file, tensors, written
        self.entries = _entries(tensors)
        self.start = 0  # offset of the first tensor in bytes

    def write_header(self, metadata: Mapping[str, str]) -> None:
        header = {"__metadata__": dict(metadata), **self.entries}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.file.seek(0)
        self.start = self.file.write(len(text).to_bytes(8, "little") + text)

    def __getitem__(self, name: str) -> Tensor:
        tensor = full_tensor(self.tensors[name]).detach().cpu().contiguous()
        self.file.seek(self.start + self.entries[name]["data_offsets"][0])
        self.written(self.file.write(tensor.reshape(-1).view(torch.uint8).numpy().data))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _entries(tensors: Mapping[str, Tensor]) -> dict[str, dict]:
    """Header entry of each tensor (dtype, shape, data_offsets), in file order."""
    order = list(STORED.values())
    specs = {name: (STORED[tensor.dtype], list(tensor.shape), tensor.nbytes) for name, tensor in tensors.items()}
    entries, end = {}, 0
    for name in sorted(specs, key=lambda name: (order.index(specs[name][0]), name)):
        dtype, shape, size = specs[name]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return entries
