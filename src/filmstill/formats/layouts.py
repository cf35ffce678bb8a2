"""Transformer checkpoints of four layouts, recognised and read.

Notable: the layout is found, not asked for; sizes are read off the tensors, and a config.json must agree with them;
every name and shape is checked before a tensor is read.

- wan: Wan-AI/Wan2.1-T2V-1.3B, a folder with config.json (WanModel) and safetensors, sharded or not; or a file alone;
- diffusers: what `WanTransformer3DModel.from_pretrained` reads, or a pipeline that has it in `transformer/`;
- self-forcing: a .pt of {"generator": …, "generator_ema": …}, as Self-Forcing and CausVid release them;
- filmstill: one safetensors file with config, facts and digest in its header (`models.weights`).
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats.tensor_names import WRAPPERS, of_transformer, to_wan
from filmstill.formats.weight_files import SHOWN, Weights, check_names, open_weights
from filmstill.models.dit import EPS, PATCH, DiTConfig, VideoDiT
from filmstill.runtime.files import read_json
from filmstill.runtime.safetensors_file import HEADER
from filmstill.runtime.tensor_files import DIGEST, digest_of
from filmstill.runtime.tensor_stream import STORED

STEM = "diffusion_pytorch_model"  # of the weights' file in a folder
PARTS = ("generator_ema", "generator")  # of a .pt, the better one first
HEADS = {1536: 12, 5120: 40}  # of Wan2.1's two sizes, by dim

# Keys of config.json to ours.
WAN_KEYS = {
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "freq_dim": "freq_dim",
    "in_dim": "in_channels",
}
DIFFUSERS_KEYS = {
    "num_attention_heads": "num_heads",
    "attention_head_dim": "head_dim",
    "ffn_dim": "ffn_dim",
    "num_layers": "num_layers",
    "freq_dim": "freq_dim",
    "text_dim": "text_dim",
    "in_channels": "in_channels",
}
_CLASSES = {"WanModel": WAN_KEYS, "CausalWanModel": WAN_KEYS, "WanTransformer3DModel": DIFFUSERS_KEYS}

# Its sizes are told apart in a shape.
_DISTINCT = DiTConfig(dim=101, ffn_dim=103, num_heads=1, num_layers=1, freq_dim=107, text_dim=109, in_channels=113)


@dataclass(frozen=True)
class Network:
    """What a checkpoint holds. `weights` (Wan names) are read when asked for; `facts` are a filmstill file's."""

    config: DiTConfig
    weights: Mapping[str, Tensor]
    format: str
    files: list[Path]
    facts: dict[str, object]


class Shards(Mapping[str, Tensor]):
    """The tensors of several files; one file is open at a time, so that no more than the largest is mapped."""

    def __init__(self, files: list[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._where: dict[str, Path] = {}
        for file in files:
            self._opened = opened = Weights([file])
            for name in opened:
                if name in self._where:
                    raise FilmstillError(f"{file}: holds {name}, and so does {self._where[name].name}")
                self._where[name], self.shapes[name], self.dtypes[name] = file, opened.shape(name), opened.dtype(name)

    def __getitem__(self, name: str) -> Tensor:
        file = self._where[name]
        if self._opened.files != [file]:
            self._opened = Weights([file])
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


@dataclass(frozen=True)
class Renamed(Mapping[str, Tensor]):
    """The tensors of `source` under other names: `names` is new name to old."""

    source: Mapping[str, Tensor]
    names: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.source[self.names[name]].detach()  # a pickle may hold parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def read_network(path: Path, part: str | None = None, heads: int | None = None) -> Network:
    """The transformer in a file or folder of any layout; no tensor is read but a filmstill file's, for its digest.

    part: which network of a .pt (default: the first of PARTS that it has). heads: for files that do not say.
    Raises FilmstillError for what is not one such network, whole and unharmed, or contradicts its config.
    """
    files, beside = _located(path)
    shards = Shards(files)
    header = _header(files[0], shards)
    stated = json.loads(header.get("config", "{}")) if header else _stated(beside, required=path.is_dir())
    part = _part(path, shards, part)
    names = _names(path, shards, f"{part}." if part else "")
    shapes = {name: shards.shapes[theirs] for name, theirs in names.items()}
    seen = _sizes(shapes)
    if "dim" not in seen:
        held = ", ".join(sorted(shapes)[:SHOWN]) or "none"
        raise FilmstillError(f"{path}: not a Wan transformer; it holds {len(shapes)} tensors: {held}")
    if differing := [f"{s} {stated[s]} (tensors: {seen[s]})" for s in seen if stated.get(s, seen[s]) != seen[s]]:
        raise FilmstillError(f"{path if header else beside}: contradicts the tensors of {path}: {', '.join(differing)}")
    # A size that no tensor shows can be any: the tensor that would show it is missing, and is found to be.
    config = DiTConfig(**{**asdict(_DISTINCT), **stated, **seen})
    wanted = _shapes(config)
    check_names(path, shapes, wanted)
    if strange := [theirs for theirs in names.values() if shards.dtypes[theirs] not in STORED]:
        dtype, allowed = shards.dtypes[strange[0]], ", ".join(STORED.values())
        raise FilmstillError(f"{path}: {strange[0]} is of {dtype}; one of {allowed} is needed")
    config = replace(config, num_heads=_heads(path, config.dim, stated.get("num_heads"), heads))
    spelt = "diffusers" if any("condition_embedder." in theirs for theirs in names.values()) else "wan"
    return Network(
        config,
        Renamed(shards, {name: names[name] for name in wanted}),
        "filmstill" if header else "self-forcing" if part else spelt,
        files,
        json.loads(header.get("facts", "{}")),
    )


def _located(path: Path) -> tuple[list[Path], Path]:
    """The files of weights in `path`, and the config.json that would be beside them."""
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    whole = folder / f"{STEM}.safetensors"  # Wan's own folder holds the files of other networks, too
    files = open_weights(whole if whole.is_file() else folder).files
    return files, files[0].parent / "config.json"


def _header(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of a filmstill file, {} for any other. Refuses one that is not as it was written."""
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get(HEADER)
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
        digest = metadata.pop(DIGEST)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise FilmstillError(f"{file}: damaged: its header is not as filmstill writes it") from None
    if digest != digest_of(tensors, metadata):
        raise FilmstillError(f"{file}: damaged: its content does not have the SHA-256 {digest[:12]}… of its header")
    return metadata


def _stated(config: Path, required: bool) -> dict[str, int]:
    """Sizes in a config.json, by our names; one of another class is refused if `required`, else passed over."""
    if not config.is_file():
        return {}
    values = read_json(config)
    kind = values.get("_class_name")
    if kind not in _CLASSES:
        if required:
            raise FilmstillError(f"{config}: _class_name {kind!r}; one of {', '.join(_CLASSES)} is needed")
        return {}
    if values.get("eps", EPS) != EPS:
        raise FilmstillError(f"{config}: eps {values['eps']}; {EPS} is needed")
    stated = {ours: values[theirs] for theirs, ours in _CLASSES[kind].items() if theirs in values}
    for name, size in stated.items():
        if not isinstance(size, int) or size < 1:
            raise FilmstillError(f"{config}: {name} {size!r}; a positive whole number is needed")
    head_dim = stated.pop("head_dim", None)
    if head_dim and "num_heads" in stated:
        stated["dim"] = head_dim * stated["num_heads"]
    return stated


def _part(path: Path, names: Mapping[str, Tensor], part: str | None) -> str | None:
    """The part of a .pt to read; None where there is one network and no parts."""
    split = [name.partition(".")[::2] for name in names]
    found = {top for top, rest in split if of_transformer(rest) and not of_transformer(top)} - WRAPPERS
    if part is None and found:
        part = next((usual for usual in PARTS if usual in found), PARTS[-1])
    if part is not None and part not in found:
        held = ", ".join(sorted(found)) or "one network and no parts"
        raise FilmstillError(f"{path}: has no part {part!r}; it has {held}")
    return part


def _names(path: Path, found: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Wan's name to the one in the files, of tensors under `prefix`."""
    names: dict[str, str] = {}
    for theirs in found:
        if theirs.startswith(prefix):
            name = to_wan(theirs.removeprefix(prefix))
            if name in names:
                raise FilmstillError(f"{path}: {names[name]} and {theirs} are both {name}")
            names[name] = theirs
    return names


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The sizes that tensors show, by DiTConfig's names (num_heads shows nowhere); most decide, not a misshaped one."""
    marks = {length: (size, 1) for size, length in asdict(_DISTINCT).items() if length > 1}
    marks[PATCH * PATCH * _DISTINCT.in_channels] = ("in_channels", PATCH * PATCH)  # the head's
    pattern = _shapes(_DISTINCT)
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    layers = 0
    for name, shape in shapes.items():
        marked = pattern.get(re.sub(r"^blocks\.\d+\.", "blocks.0.", name), ())
        if marked and (block := re.match(r"blocks\.(\d+)\.", name)):
            layers = max(layers, int(block[1]) + 1)
        if len(marked) == len(shape):
            for mark, length in zip(marked, shape, strict=True):
                if mark in marks:
                    size, times = marks[mark]
                    votes[size][length // times] += 1
    seen = {size: count.most_common(1)[0][0] for size, count in votes.items()}
    return {**seen, "num_layers": layers} if layers else seen


def _heads(path: Path, dim: int, stated: int | None, given: int | None) -> int:
    if stated is not None and given is not None and stated != given:
        raise FilmstillError(f"{path}: --heads {given}, but its config says {stated}")
    heads = given if stated is None else stated
    if heads is None and (heads := HEADS.get(dim)) is None:
        raise FilmstillError(f"{path}: does not say how many attention heads share its dim of {dim}; give --heads")
    if heads < 1 or dim % heads or dim // heads % 2:
        raise FilmstillError(f"{path}: {heads} heads; a number that cuts dim {dim} into even pieces is needed")
    return heads


def _shapes(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in VideoDiT(config).state_dict().items()}
