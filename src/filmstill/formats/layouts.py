"""Recognise and read transformer checkpoints of four layouts.

The layout is detected from the files. Sizes are inferred from the tensors' shapes, and a config.json must agree with
them. Every name and shape is checked before a tensor is read.

- wan: Wan-AI/Wan2.1-T2V-1.3B, a folder with config.json (WanModel) and safetensors, sharded or not; or only the file;
- diffusers: a folder for `WanTransformer3DModel.from_pretrained`, or a pipeline that contains it as `transformer/`;
- self-forcing: a .pt of {"generator": …, "generator_ema": …}, as released by Self-Forcing and CausVid;
- filmstill: one safetensors file with config, facts and digest in its header (`models.weights`).
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats.families import (
    CLASSES,
    TRANSFORMER,
    check_dtypes,
    pipeline_networks,
    refuse_other_config,
    refuse_other_folder,
    refuse_other_tensors,
)
from filmstill.formats.released_files import read_released_json
from filmstill.formats.tensor_names import WRAPPERS, is_transformer_name, leading_wrappers, to_wan
from filmstill.formats.weight_files import SHOWN, Weights, check_names, open_weights
from filmstill.models.dit import EPS, PATCH, DiTConfig, VideoDiT
from filmstill.runtime.safetensors_file import HEADER
from filmstill.runtime.tensor_files import DIGEST, digest_of

LARGEST_SIZE = 2**18  # of any size that config.json declares: that of the widest feed-forward network in params.yaml
PARTS = ("generator_ema", "generator")  # networks in a .pt, in order of preference
HEADS = {1536: 12, 5120: 40}  # attention heads of Wan2.1's two networks, by dim

# Keys of config.json to the names of filmstill's sizes.
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

# Every size but the two counts is a prime of its own, so that a dimension of this network's tensors identifies the
# size that it shows.
_TEMPLATE = DiTConfig(dim=101, ffn_dim=103, num_heads=1, num_layers=1, freq_dim=107, text_dim=109, in_channels=113)


@dataclass(frozen=True)
class Network:
    """A checkpoint's transformer. `weights`, under Wan's names, are read on access; `format` is the layout's name.

    `facts` come from a filmstill file's header and are {} for every other layout.
    """

    config: DiTConfig
    weights: Mapping[str, Tensor]
    format: str
    files: list[Path]
    facts: dict[str, object]


@dataclass(frozen=True)
class Renamed(Mapping[str, Tensor]):
    """The tensors of `source` under new names; `names` maps a new name to the old one."""

    source: Mapping[str, Tensor]
    names: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.source[self.names[name]].detach()  # a pickle may contain nn.Parameter

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def read_network(path: Path, part: str | None = None, heads: int | None = None) -> Network:
    """Read the transformer in a file or folder of any layout.

    Tensors are read on access; only a filmstill file is read completely, to check its digest.
    part: which network of a .pt (default: the first of PARTS that it contains).
    heads: number of attention heads, required if neither the files nor HEADS determine it.
    Raises FilmstillError if the files are damaged, are not exactly one such network, or contradict their config.
    """
    refuse_other_folder(path)
    if len(networks := pipeline_networks(path)) > 1:
        raise FilmstillError(
            f"{path}: is a pipeline of two experts, allowed: one network; pass one of its folders: "
            f"{', '.join(networks)}"
        )
    stored = open_weights(path / "transformer" if (path / "transformer").is_dir() else path)
    header = _header(stored)
    config_file = stored.files[0].parent / "config.json"
    if not header:
        refuse_other_tensors(path, stored.shapes)
    declared = json.loads(header.get("config", "{}")) if header else _declared_sizes(config_file, path.is_dir())
    part = _part(path, stored, part)
    names = _names_in_files(path, stored, f"{part}." if part else "")
    shapes = {name: stored.shapes[in_file] for name, in_file in names.items()}
    inferred = _inferred_sizes(shapes)
    if "dim" not in inferred:
        listed = ", ".join(sorted(shapes)[:SHOWN]) or "none"
        raise FilmstillError(f"{path}: not a Wan transformer; it contains {len(shapes)} tensors: {listed}")
    _check_blocks(path, shapes)
    if differing := [
        f"{size} {declared[size]} (tensors: {shown})"
        for size, shown in inferred.items()
        if declared.get(size, shown) != shown
    ]:
        source = path if header else config_file
        raise FilmstillError(f"{source}: contradicts the tensors of {path}: {', '.join(differing)}")
    # A size that no tensor shows keeps the template's value: `check_names` then reports the tensor that should show it.
    config = DiTConfig(**{**asdict(_TEMPLATE), **declared, "num_layers": 1, **inferred})
    expected = _tensor_shapes(config)
    check_names(path, shapes, expected)
    check_dtypes(path, {in_file: stored.dtypes[in_file] for in_file in names.values()})
    config = replace(config, num_heads=_heads(path, config.dim, declared.get("num_heads"), heads))
    layout = "diffusers" if any("condition_embedder." in in_file for in_file in names.values()) else "wan"
    return Network(
        config,
        Renamed(stored, {name: names[name] for name in expected}),
        "filmstill" if header else "self-forcing" if part else layout,
        stored.files,
        json.loads(header.get("facts", "{}")),
    )


def _header(stored: Weights) -> dict[str, str]:
    """Metadata of a filmstill file, {} for any other file. Raises FilmstillError if its digest does not match."""
    text = stored.metadata.get(HEADER)
    if text is None:
        return {}
    file = stored.files[0]
    try:
        metadata = json.loads(text)
        digest = metadata.pop(DIGEST)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise FilmstillError(f"{file}: damaged: its header is not as filmstill writes it") from None
    if digest != digest_of(stored, metadata):
        raise FilmstillError(f"{file}: damaged: its content does not have the SHA-256 {digest[:12]}… of its header")
    return metadata


def _declared_sizes(config: Path, required: bool) -> dict[str, int]:
    """Sizes that a config.json declares, by DiTConfig's names; {} if there is none.

    Raises FilmstillError for unusable values and, if `required`, for the config of another class (else ignored).
    """
    if not config.is_file():
        return {}
    values = read_released_json(config)
    kind = values.get("_class_name")
    if kind not in CLASSES and not required:
        return {}
    refuse_other_config(config, values)
    keys = DIFFUSERS_KEYS if kind == TRANSFORMER else WAN_KEYS
    if values.get("eps", EPS) != EPS:
        raise FilmstillError(f"{config}: eps: is {values['eps']}, allowed: {EPS}")
    sizes = {size: values[key] for key, size in keys.items() if key in values}
    for size, value in sizes.items():
        if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
            raise FilmstillError(f"{config}: {size}: is {value!r}, allowed: a positive integer, at most {LARGEST_SIZE}")
    head_dim = sizes.pop("head_dim", None)
    if head_dim and "num_heads" in sizes:
        sizes["dim"] = head_dim * sizes["num_heads"]
    return sizes


def _part(path: Path, names: Mapping[str, Tensor], part: str | None) -> str | None:
    """The part of a .pt to read; None if the file is one network without parts."""
    split = [name.partition(".")[::2] for name in names]
    found = {top for top, rest in split if is_transformer_name(rest) and not is_transformer_name(top)} - WRAPPERS
    if part is None and found:
        part = next((preferred for preferred in PARTS if preferred in found), PARTS[-1])
    if part is not None and part not in found:
        parts = ", ".join(sorted(found)) or "one network and no parts"
        raise FilmstillError(f"{path}: has no part {part!r}; it has {parts}")
    return part


def _names_in_files(path: Path, found: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Wan's name of every tensor under `prefix` to its name in the files.

    Raises FilmstillError unless the same wrappers come before every tensor's name, and where two names are one.
    """
    names: dict[str, str] = {}
    for stored in found:
        if stored.startswith(prefix):
            name = to_wan(stored.removeprefix(prefix))
            if name in names:
                raise FilmstillError(f"{path}: {names[name]} and {stored} are both {name}")
            names[name] = stored
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for stored in names.values():
        by_prefix[leading_wrappers(stored.removeprefix(prefix))].append(stored)
    if len(by_prefix) > 1 and any(is_transformer_name(name) for name in names):
        listed = "; ".join(
            f"{len(stored)} tensors with {f'{before}.' if before else 'no prefix'} ({min(stored)})"
            for before, stored in sorted(by_prefix.items(), key=lambda item: -len(item[1]))
        )
        raise FilmstillError(f"{path}: is of mixed prefixes: {listed}; allowed: the same one; save the network alone")
    return names


def _check_blocks(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise FilmstillError unless the blocks are numbered 0, 1, … without a gap.

    A network is built with as many blocks as the largest number shows: one wrong name would make millions of them.
    """
    numbers = {found[1] for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))}
    expected = {str(number) for number in range(len(numbers))}
    if numbers != expected:
        wrong, absent = min(numbers - expected)[:20], min(map(int, expected - numbers))
        raise FilmstillError(
            f"{path}: has blocks.{wrong} and no blocks.{absent}, allowed: {len(numbers)} blocks, numbered from 0 "
            "without a gap; download it again, or save all of its blocks"
        )


def _inferred_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Sizes that the tensors' shapes show, by DiTConfig's names; num_heads shows in none.

    Every dimension of every tensor votes for its size and the majority wins, so a misshaped tensor changes none.
    """
    size_of = {length: (size, 1) for size, length in asdict(_TEMPLATE).items() if length > 1}  # (size, its multiple)
    size_of[PATCH * PATCH * _TEMPLATE.in_channels] = ("in_channels", PATCH * PATCH)  # rows of the head
    template = _tensor_shapes(_TEMPLATE)
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    blocks: set[str] = set()
    for name, shape in shapes.items():
        template_shape = template.get(re.sub(r"^blocks\.\d+\.", "blocks.0.", name), ())
        if template_shape and (block := re.match(r"blocks\.(\d+)\.", name)):
            blocks.add(block[1])
        if len(template_shape) == len(shape):
            for template_length, length in zip(template_shape, shape, strict=True):
                if template_length in size_of:
                    size, multiple = size_of[template_length]
                    votes[size][length // multiple] += 1
    sizes = {size: count.most_common(1)[0][0] for size, count in votes.items()}
    return {**sizes, "num_layers": len(blocks)} if blocks else sizes


def _heads(path: Path, dim: int, declared: int | None, given: int | None) -> int:
    """The number of attention heads: declared by the config, passed by the caller, or known for this dim."""
    if declared is not None and given is not None and declared != given:
        raise FilmstillError(f"{path}: --heads: is {given}, allowed: {declared}, the num_heads of its config")
    heads = given if declared is None else declared
    if heads is None and (heads := HEADS.get(dim)) is None:
        raise FilmstillError(f"{path}: does not say how many attention heads share its dim of {dim}; give --heads")
    if heads < 1 or dim % heads or dim // heads % 2:
        raise FilmstillError(
            f"{path}: num_heads: is {heads}, allowed: a divisor of dim {dim} that leaves each head an even number of "
            "channels"
        )
    return heads


def _tensor_shapes(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in VideoDiT(config).state_dict().items()}
