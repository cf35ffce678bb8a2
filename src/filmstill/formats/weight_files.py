"""Read the weights in other projects' files, tensor by tensor, without executing anything in them.

A source is a file or folder that `list_weights` reads: safetensors, or torch's .pt/.pth. A tensor is read on access
(pickles are mapped, not loaded), so memory contains only tensors in use. A pickle of anything but plain tensors is
refused before any of it runs (`torch.load(weights_only=True)`).
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats.weights_folder import WeightFiles, list_weights
from filmstill.runtime.file_kind import SAFETENSORS, first_bytes, kind_of
from filmstill.runtime.tensor_stream import STORED

SHOWN = 10  # names listed in a message


class Weights(Mapping[str, Tensor]):
    """The tensors of several files, read on access. One file is open at a time, so that only one is mapped.

    shapes, dtypes: by tensor; a dtype that filmstill stores is spelled as in safetensors ("BF16").
    metadata: that of the first file, {} for a pickle.
    """

    def __init__(self, found: WeightFiles) -> None:
        self.files = list(found.files)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._where: dict[str, Path] = {}
        for path, placed in found.files.items():
            self._opened, self._file = path, _open(path)
            present = self._file.keys()
            if placed and (absent := sorted(placed - set(present))):
                where = found.index.name if found.index else "its index"
                raise FilmstillError(f"{path}: has no tensor {absent[0]}, which {where} puts there; download it again")
            for name in present if placed is None else sorted(placed):
                self._where[name] = path
                self.shapes[name], self.dtypes[name] = _shape_and_dtype(self._file, name)
            if path == self.files[0] and not isinstance(self._file, dict):
                self.metadata = self._file.metadata() or {}

    def __getitem__(self, name: str) -> Tensor:
        path = self._where[name]
        if self._opened != path:
            self._opened, self._file = path, _open(path)
        return self._file[name] if isinstance(self._file, dict) else self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def open_weights(path: Path) -> Weights:
    """Open the weights of a file or folder.

    Raises FilmstillError if `list_weights` refuses it, or if a file is damaged or a pickle of anything but tensors.
    """
    return Weights(list_weights(path))


def check_names(
    source: Path | str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise FilmstillError unless the names and shapes of the weights `found` in `source` are the expected ones.

    The message counts the missing, unknown and misshaped tensors and lists the first SHOWN of each kind.
    """
    faults = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "misshaped": [
            f"{name} {list(found[name])} for {list(expected[name])}"
            for name in sorted(expected.keys() & found.keys())
            if found[name] != expected[name]
        ],
    }
    messages = [
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"
        for kind, names in faults.items()
        if names
    ]
    if messages:
        raise FilmstillError(f"{source}: not the weights of this network: {'; '.join(messages)}")


def _open(path: Path) -> Any:
    """An opened safetensors file, or the tensors of a pickle by name."""
    if kind_of(first_bytes(path)) != SAFETENSORS:
        return _flat(_unpickled(path))
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise FilmstillError(f"{path}: is damaged: not whole safetensors ({error}); download it again") from None


def _shape_and_dtype(file: Any, name: str) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a tensor in an opened file, without reading its numbers."""
    if isinstance(file, dict):
        tensor = file[name]
        return tuple(tensor.shape), STORED.get(tensor.dtype, str(tensor.dtype))
    view = file.get_slice(name)
    return tuple(view.get_shape()), view.get_dtype()


def _unpickled(path: Path) -> Any:
    """The content of a file of torch.save, mapped where its format allows it."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "_use_new_zipfile_serialization" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # no mmap: from before torch 1.6
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        if operand := next((line for line in lines if "Unsupported operand" in line or "too long" in line), None):
            raise FilmstillError(
                f"{path}: is damaged, or was not pickled as torch.save does ({operand[-60:]}); it was not executed. "
                "Download it again, or save it as safetensors where it was made"
            ) from None
        reason = next((line for line in lines if "global" in line.lower()), "")[:120]
        raise FilmstillError(
            f"{path}: holds more than plain tensors; it was not executed. Convert it to safetensors where it was made"
            f"{reason and f' ({reason})'}"
        ) from None
    except Exception as error:  # a damaged pickle fails with any kind of error, struct.error and IndexError among them
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> FilmstillError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FilmstillError(
        f"{path}: is truncated or damaged: not a whole file of torch.save ({reason[:120]}); download it again"
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested dictionaries by dotted name; other values in them (steps, settings) are skipped."""
    if isinstance(value, Tensor):
        return {prefix.removesuffix("."): value}
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for key, part in value.items() for name, tensor in _flat(part, f"{prefix}{key}.").items()}
