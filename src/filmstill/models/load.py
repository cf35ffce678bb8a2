"""Codec and text encoder of a run, by what their own files say they are."""

from pathlib import Path

import torch

from filmstill.artifacts import CODEC, PROMPT_CACHE, TEXT
from filmstill.errors import FilmstillError
from filmstill.models.codec import DCT, Codec, DctCodec
from filmstill.models.released import read_json
from filmstill.models.text import HASHED_WORDS, HashedWords, TextEncoder
from filmstill.params.shared import Compute, Text
from filmstill.runtime.files import read_metadata, write_json

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
