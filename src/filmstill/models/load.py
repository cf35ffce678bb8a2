"""What a run computes with, by what its own files say it is: codec, text encoder, networks that are not trained."""

from pathlib import Path

import torch

from filmstill.artifacts import CODEC, PROMPT_CACHE, REAL_SCORE, TEXT
from filmstill.errors import FilmstillError
from filmstill.models.codec import DCT, Codec, DctCodec
from filmstill.models.dit import VideoDiT
from filmstill.models.experts import Denoiser, Experts
from filmstill.models.sharding import shard
from filmstill.models.text import HASHED_WORDS, HashedWords, TextEncoder
from filmstill.models.weights import load_model
from filmstill.params.compute import Compute
from filmstill.params.text import Text
from filmstill.runtime import distributed
from filmstill.runtime.files import read_json, write_json
from filmstill.runtime.safetensors_file import read_metadata

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def save_hashed_words(folder: Path, encoder: HashedWords) -> None:
    """The embedded encoder's folder: it has no weights, so its sizes say it all."""
    sizes = {"text_len": encoder.text_len, "text_dim": encoder.text_dim}
    write_json(folder / "encoder.json", {"kind": HASHED_WORDS, **sizes})


def load_encoder(text: Text, compute: Compute, folder: Path = TEXT) -> TextEncoder:
    """The encoder in `folder`; a released one keeps what it has encoded in PROMPT_CACHE."""
    facts = read_json(folder / "encoder.json")
    if facts.get("kind") == HASHED_WORDS:
        return HashedWords(facts["text_len"], facts["text_dim"])
    from filmstill.models.umt5 import Umt5  # with tokenizers: the embedded world needs none

    device = torch.device(compute.device)
    return Umt5.load(folder, PROMPT_CACHE, text.placement, device, DTYPES[compute.precision])


def load_codec(compute: Compute, path: Path = CODEC, fast: bool = False) -> Codec:
    """The codec in `path`; fast: decode by its small decoder."""
    if read_metadata(path).get("kind") == DCT:
        if fast:
            raise FilmstillError(f"{path}: the embedded codec has no fast decoder and needs none")
        return DctCodec.load(path)
    from filmstill.models.wan_vae import WanVae  # with diffusers: seconds to import

    return WanVae.load(path, fast).to(compute.device, DTYPES[compute.precision])


def frozen(model: VideoDiT, compute: Compute) -> VideoDiT:
    """A network without gradients, where and in what the machine computes."""
    model.precision = DTYPES[compute.precision]
    model.freeze()
    return shard(model, compute.device)


def real_score(compute: Compute, folder: Path = REAL_SCORE) -> Denoiser | None:
    """The network, or the two experts, of a real_score folder; None where it names none."""
    facts = read_json(folder / "experts.json")
    models = [load_model(folder / name)[0] for name in facts["files"]]
    if len(models) < 2:
        return frozen(models[0], compute) if models else None
    for model in models:
        model.precision = DTYPES[compute.precision]
        model.freeze()
        if distributed.world_size() > 1:
            shard(model, compute.device)
    return Experts(models[0], models[1], 1000 * facts["boundary"], torch.device(compute.device))
