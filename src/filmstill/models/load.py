"""Loading of codec, text encoder and frozen networks; the kind of each is read from its own file."""

from pathlib import Path
from typing import Any

import torch

from filmstill.artifacts import CODEC, PROMPT_CACHE, REAL_SCORE, TEXT
from filmstill.errors import FilmstillError, require
from filmstill.models.codec import DCT, Codec, DctCodec
from filmstill.models.dit import VideoDiT
from filmstill.models.experts import Denoiser, Experts
from filmstill.models.sharding import shard
from filmstill.models.text import FACTS, HASHED_WORDS, HashedWords, TextEncoder
from filmstill.models.weights import load_model
from filmstill.params.compute import Compute
from filmstill.params.text import Text
from filmstill.params.world import EMBEDDED, OPEN, STRIDE
from filmstill.runtime import distributed
from filmstill.runtime.files import read_json, write_json
from filmstill.runtime.safetensors_file import read_metadata

LARGEST_SIZE = 65536  # of the embedded encoder, as in params.yaml
SIZE = f"an integer from 1 to {LARGEST_SIZE}; restore the file"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def save_hashed_words(folder: Path, encoder: HashedWords) -> None:
    """Write the embedded encoder's folder: only encoder.json with its kind and sizes, since it has no weights."""
    sizes = {"text_len": encoder.text_len, "text_dim": encoder.text_dim}
    write_json(folder / FACTS, {"kind": HASHED_WORDS, **sizes})


def load_encoder(text: Text, compute: Compute, folder: Path = TEXT) -> TextEncoder:
    """The encoder in `folder`; a released one caches encoded prompts in PROMPT_CACHE."""
    if folder.is_file():
        raise FilmstillError(f"{folder}: is a file, allowed: a text encoder's folder, with {FACTS} in it; give {TEXT}")
    path = folder / FACTS
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; the stage that makes it has not run (dvc repro)")
    facts = read_json(path)
    if facts.get("kind") == HASHED_WORDS:
        for key in ("text_len", "text_dim"):
            size = facts.get(key)
            require(type(size) is int and 0 < size <= LARGEST_SIZE, f"{path}: {key}", size, SIZE)
        return HashedWords(facts["text_len"], facts["text_dim"])
    from filmstill.models.umt5 import Umt5  # imports tokenizers, which the embedded encoder does not need

    device = torch.device(compute.device)
    return Umt5.load(folder, PROMPT_CACHE, text.placement, device, DTYPES[compute.precision])


def load_codec(compute: Compute, path: Path = CODEC, fast: bool = False) -> Codec:
    """The codec in `path`. fast: decode with its small decoder (TAEHV).

    Raises FilmstillError if the file is no codec, or has no fast decoder and `fast` is set.
    """
    if read_metadata(path).get("kind") == DCT:
        if fast:
            raise FilmstillError(f"{path}: the embedded codec has no fast decoder and needs none")
        return DctCodec.load(path)
    from filmstill.models.wan_vae import WanVae  # imports diffusers, which takes seconds

    return WanVae.load(path, fast).to(compute.device, DTYPES[compute.precision])


def pixel_frames(path: Path, latent_frames: int) -> int:
    """Frames of the video that the codec in `path` decodes from `latent_frames`, by the kind in its header."""
    if read_metadata(path).get("kind") == DCT:
        return latent_frames
    from filmstill.models.wan_vae import WanVae

    return WanVae.pixel_frames(latent_frames)


def latent_frames(path: Path, frames: int) -> int:
    """Whole latent frames that the codec in `path` makes of the last of `frames` >= 1 frames of video."""
    if read_metadata(path).get("kind") == DCT:
        return frames
    from filmstill.models.wan_vae import TIME_STRIDE

    return 1 + (frames - 1) // TIME_STRIDE


def pixel_size(path: Path, latent_size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width in pixels of latents [h, w] of the codec in `path`."""
    stride = STRIDE[EMBEDDED if read_metadata(path).get("kind") == DCT else OPEN]
    return latent_size[0] * stride, latent_size[1] * stride


def frozen(model: VideoDiT, compute: Compute) -> VideoDiT:
    """Freeze a network, and place it according to the device, precision and sharding of `compute`."""
    model.precision = DTYPES[compute.precision]
    model.freeze()
    return shard(model, compute.device)


def load_real_score(compute: Compute, folder: Path = REAL_SCORE) -> Denoiser | None:
    """The teacher in a real_score folder: one network or two experts; None if its experts.json lists no file."""
    facts = read_json(path := folder / "experts.json")
    files: Any = facts.get("files")
    boundary: Any = facts.get("boundary")
    if not isinstance(files, list) or len(files) > 2 or not all(isinstance(name, str) for name in files):
        raise FilmstillError(f"{path}: files: is {files!r}, allowed: names of at most two files; restore the file")
    if len(files) == 2 and not isinstance(boundary, float):
        raise FilmstillError(f"{path}: boundary: is {boundary!r}, allowed: the experts' sigma; restore the file")
    models = [load_model(folder / name)[0] for name in files]
    if len(models) < 2:
        return frozen(models[0], compute) if models else None
    for model in models:
        model.precision = DTYPES[compute.precision]
        model.freeze()
        if distributed.world_size() > 1:
            shard(model, compute.device)
    return Experts(models[0], models[1], 1000 * boundary, torch.device(compute.device))
