"""Network files: safetensors with the network's sizes and other facts in the header."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstill.errors import FilmstillError, require
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.params.model import Model
from filmstill.runtime import distributed
from filmstill.runtime.safetensors_file import read_metadata
from filmstill.runtime.tensor_files import load_tensors
from filmstill.runtime.tensor_stream import stream_tensors


def config_of(model: Model) -> DiTConfig:
    """The sizes in section `model` of params.yaml."""
    return DiTConfig(**{field.name: getattr(model, field.name) for field in fields(DiTConfig)})


def header_of(config: DiTConfig, facts: dict[str, object]) -> dict[str, str]:
    """Metadata of a network's file: its config and `facts` as JSON."""
    return {"config": json.dumps(asdict(config)), "facts": json.dumps(facts, sort_keys=True)}


def save_model(path: Path, tensors: dict[str, Tensor], config: DiTConfig, facts: dict[str, object]) -> None:
    """Write weights with their config and `facts` (JSON values: schedule, rollout, …) in the header.

    Sharded weights are gathered one by one and written by rank 0. Collective: every rank must call it.
    """
    if distributed.is_rank0():
        stream_tensors(path, tensors, header_of(config, facts), lambda _bytes: None)
    else:
        for name in sorted(tensors):  # the order in which rank 0 reads them
            distributed.full_tensor(tensors[name])
    distributed.barrier()


def check_sizes(path: Path, found: DiTConfig, expected: DiTConfig) -> None:
    """Raise FilmstillError if the sizes of the network in `path` differ from those of params.yaml."""
    ours, wanted = asdict(found), asdict(expected)
    differing = [f"{name} {ours[name]} (params.yaml: {wanted[name]})" for name in wanted if ours[name] != wanted[name]]
    if differing:
        raise FilmstillError(
            f"{path}: a network of other sizes: {', '.join(differing)}; set model.* to match or run its stage"
        )


def load_model(path: Path, expected: DiTConfig | None = None) -> tuple[VideoDiT, dict]:
    """(frozen network in evaluation mode, facts) of a file written by `save_model`.

    Raises FilmstillError if the file is damaged, is no network, or has other sizes than `expected`.
    """
    tensors, header = load_tensors(path)
    config, facts = _parsed(path, header)
    if expected is not None:
        check_sizes(path, config, expected)
    with torch.device("meta"):
        model = VideoDiT(config)
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise FilmstillError(f"{path}: does not hold this network: {' '.join(str(error).split())[:300]}") from None
    return model.requires_grad_(False).eval(), facts


def read_header(path: Path) -> tuple[DiTConfig, dict[str, Any]]:
    """(config, facts) of a file written by `save_model`, without its weights. Raises FilmstillError for any other."""
    return _parsed(path, read_metadata(path))


def _parsed(path: Path, header: dict[str, str]) -> tuple[DiTConfig, dict[str, Any]]:
    """(config, facts) in a header. Raises FilmstillError if it was not written by `save_model`."""
    for key in ("config", "facts"):
        if key not in header:
            raise FilmstillError(f"{path}: has no '{key}' in its header; it was not written by a filmstill stage")
    sizes, facts = (_mapping(path, key, header[key]) for key in ("config", "facts"))
    for field in fields(DiTConfig):
        size, name = sizes.get(field.name), f"{path}: config: {field.name}"
        require(type(size) is int and size > 0, name, size, "a positive integer; restore the file")
    return DiTConfig(**{field.name: sizes[field.name] for field in fields(DiTConfig)}), facts


def _mapping(path: Path, key: str, text: str) -> dict[str, Any]:
    """A JSON object in a header. Raises FilmstillError for other text."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    require(isinstance(value, dict), f"{path}: {key} in its header", text, "a JSON object; restore the file")
    return value
