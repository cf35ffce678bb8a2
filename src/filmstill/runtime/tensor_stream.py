"""safetensors written tensor by tensor, and folders that are either whole or absent.

Notable: the header is made of shapes and dtypes, which a mapped tensor tells without being read, so that memory holds
one tensor at a time; same bytes as the library's; the digest is taken while writing and put into a place kept for it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from filmstill.errors import writing_failed
from filmstill.runtime.distributed import full_tensor
from filmstill.runtime.files import replacing
from filmstill.runtime.safetensors_file import HEADER
from filmstill.runtime.tensor_files import DIGEST, digest_of

# What a network is kept in, with safetensors' names, in the order in which its library puts them into a file.
STORED = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}

Written = Callable[[int], object]  # told the bytes of each write


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], written: Written) -> None:
    """Write safetensors atomically from a mapping that may read as it is asked; dtypes are those of STORED."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        stream = _Stream(file, tensors, written)
        stream.write_header(metadata)
        for name in stream:
            _ = stream[name]


def stream_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], written: Written) -> None:
    """`tensor_files.save_tensors`, byte for byte, from a mapping that may read as it is asked.

    A tensor that lies on several processes is gathered as it is written: the others must ask for it then, by name.
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
    """Give a temporary folder beside `path`; rename it to `path`, absent or empty, when the block ends well."""
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed and had this number
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Stream(Mapping[str, Tensor]):
    """The tensors of a file in the making, in its order; one that is read here is thereby written to its place."""

    def __init__(self, file: BinaryIO, tensors: Mapping[str, Tensor], written: Written) -> None:
        self.file, self.tensors, self.written = file, tensors, written
        self.entries = _entries(tensors)
        self.start = 0  # of the first tensor, in bytes

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
    """The header's entry of each tensor, in the file's order."""
    order = list(STORED.values())
    specs = {name: (STORED[tensor.dtype], list(tensor.shape), tensor.nbytes) for name, tensor in tensors.items()}
    entries, end = {}, 0
    for name in sorted(specs, key=lambda name: (order.index(specs[name][0]), name)):
        dtype, shape, size = specs[name]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return entries
