"""Read the weights in other projects' files, tensor by tensor, without executing anything in them.

A source is one safetensors file, a folder of shards with its index, or torch's .pt/.pth. A tensor is read on access
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
from filmstill.runtime.files import read_json
from filmstill.runtime.tensor_stream import STORED

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
SHOWN = 10  # names listed in a message


class Weights(Mapping[str, Tensor]):
    """The tensors of `files` by name, read on access; `shape` and `dtype` read no tensor."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._open: dict[Path, Any] = {}
        self._where: dict[str, Path] = {}
        for path in files:
            self._open[path] = _open(path)
            self._where |= dict.fromkeys(self._open[path].keys(), path)

    def __getitem__(self, name: str) -> Tensor:
        file = self._open[self._where[name]]
        return file[name] if isinstance(file, dict) else file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        file = self._open[self._where[name]]
        return tuple(file[name].shape if isinstance(file, dict) else file.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        return self[name].dtype  # the tensor is mapped: its bytes are not read


def open_weights(path: Path) -> Weights:
    """Open the weights of a file, or of a folder with one weights file or an index (`*.index.json`) of its shards.

    Raises FilmstillError if a file is missing, truncated, or a pickle of anything but tensors.
    """
    if path.is_file():
        return Weights([path])
    if not path.is_dir():
        raise FilmstillError(f"{path}: no such file or folder")
    if indices := sorted(path.glob("*.index.json"), key=lambda index: ".safetensors" not in index.name):
        listed = read_json(indices[0]).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise FilmstillError(f"{indices[0]}: lists no shards: its weight_map is {str(listed)[:80]}")
        names = sorted(set(map(str, listed.values())))
        if absent := [name for name in names if not (path / name).is_file()]:
            raise FilmstillError(f"{path / absent[0]}: missing; {indices[0].name} lists {len(names)} shards")
        return Weights([path / name for name in names])
    found = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", *PICKLES))
    if len(found) != 1:
        listed = ", ".join(p.name for p in found) or "none"
        raise FilmstillError(f"{path}: expected one weights file or a *.index.json, found {len(found)} ({listed})")
    return Weights(found)


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


def check_dtypes(source: Path, dtypes: Mapping[str, torch.dtype]) -> None:
    """Raise FilmstillError for the first tensor whose dtype filmstill does not store."""
    for name, dtype in dtypes.items():
        if dtype not in STORED:
            raise FilmstillError(f"{source}: {name}: is {dtype}, allowed: {', '.join(STORED.values())}")


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return safe_open(path, framework="pt")
        except SafetensorError as error:
            raise FilmstillError(
                f"{path}: not a whole safetensors file, it is truncated or of another kind ({error})"
            ) from None
    return _flat(_unpickled(path))


def _unpickled(path: Path) -> Any:
    """The content of a file of torch.save, mapped where its format allows it."""
    refused = f"{path}: holds more than plain tensors; it was not executed. Convert it to safetensors where it was made"
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "_use_new_zipfile_serialization" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # no mmap: from before torch 1.6
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), "")
        raise FilmstillError(f"{refused} ({reason.strip()[:120]})" if reason else refused) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FilmstillError(
            f"{path}: not a whole file of torch.save, it is truncated or of another kind ({reason[:120]})"
        ) from None


def _flat(value: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested dictionaries by dotted name; other values in them (steps, settings) are skipped."""
    if isinstance(value, Tensor):
        return {prefix.removesuffix("."): value}
    if not isinstance(value, Mapping):
        return {}
    return {name: tensor for key, part in value.items() for name, tensor in _flat(part, f"{prefix}{key}.").items()}
