"""Networks on disk: safetensors with the sizes in the header, so that a file says what it is."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.params.model import Model
from filmstill.runtime import distributed
from filmstill.runtime.tensor_files import load_tensors
from filmstill.runtime.tensor_stream import stream_tensors


def config_of(model: Model) -> DiTConfig:
    """The network that the `model` section describes."""
    return DiTConfig(**{field.name: getattr(model, field.name) for field in fields(DiTConfig)})


def header_of(config: DiTConfig, facts: dict[str, object]) -> dict[str, str]:
    """What a network's file says of itself."""
    return {"config": json.dumps(asdict(config)), "facts": json.dumps(facts, sort_keys=True)}


def save_model(path: Path, tensors: dict[str, Tensor], config: DiTConfig, facts: dict[str, object]) -> None:
    """Write weights with their config and `facts` (JSON values: schedule, rollout, …) in the header.

    Weights that lie on several processes are gathered one by one; every process must ask, the first one writes.
    """
    if distributed.is_rank0():
        stream_tensors(path, tensors, header_of(config, facts), lambda _bytes: None)
    else:
        for name in sorted(tensors):  # as the first one reads them
            distributed.full_tensor(tensors[name])
    distributed.barrier()


def check_sizes(path: Path, found: DiTConfig, expected: DiTConfig) -> None:
    """Refuse a network that is not of params.yaml's sizes."""
    theirs, ours = asdict(found), asdict(expected)
    differing = [f"{name} {theirs[name]} (params.yaml: {ours[name]})" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise FilmstillError(
            f"{path}: a network of other sizes: {', '.join(differing)}; set model.* to match or run its stage"
        )


def load_model(path: Path, expected: DiTConfig | None = None) -> tuple[VideoDiT, dict]:
    """(network in evaluation mode, facts) of a file; refuses one of other sizes than `expected`."""
    tensors, header = load_tensors(path)
    if "config" not in header:
        raise FilmstillError(f"{path}: has no 'config' in its header; it was not written by a filmstill stage")
    config = DiTConfig(**json.loads(header["config"]))
    if expected is not None:
        check_sizes(path, config, expected)
    with torch.device("meta"):
        model = VideoDiT(config)
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise FilmstillError(f"{path}: does not hold this network: {' '.join(str(error).split())[:300]}") from None
    return model.requires_grad_(False).eval(), json.loads(header["facts"])
