"""Folder of a UMT5 text encoder: encoder.json, encoder.safetensors, tokenizer.json.

`formats.umt5` writes it from a released encoder; `models.umt5` reads it.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from filmstill.errors import FilmstillError
from filmstill.runtime.files import sha256_of
from filmstill.runtime.safetensors_file import opened

WEIGHTS, TOKENIZER = "encoder.safetensors", "tokenizer.json"
KIND = "umt5"
EMBEDDING, TIED = "shared.weight", "encoder.embed_tokens.weight"  # two names in Hugging Face's network for one tensor


def open_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer with padding and truncation off, whatever its file sets.

    Raises FilmstillError if the file is not a tokenizer.json of the tokenizers library.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise FilmstillError(f"{path}: not a fast tokenizer's file ({str(error).splitlines()[0][:120]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def empty_network(config: dict[str, Any]) -> nn.Module:
    """UMT5's encoder without weights, on device "meta"."""
    from transformers import UMT5Config, UMT5EncoderModel  # takes five seconds

    with torch.device("meta"):
        return UMT5EncoderModel(UMT5Config(**config)).eval()


def load_network(path: Path, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """UMT5's encoder with the weights of a file, frozen, on `device` in `dtype`."""
    network: Any = empty_network(config)
    with opened(path, "pt") as file:
        tensors = {name: file.get_tensor(name).to(device, dtype) for name in file.keys()}  # noqa: SIM118 (not a dict)
    network.load_state_dict({**tensors, TIED: tensors[EMBEDDING]}, assign=True)
    network.tie_weights()  # make it one parameter again: two would be gathered twice by a sharded network
    return network.requires_grad_(False)


def digest_of(folder: Path) -> str:
    """SHA-256 of the SHA-256s of the weights and tokenizer files. Raises FilmstillError if one cannot be read."""
    digest = hashlib.sha256()
    for path in (folder / WEIGHTS, folder / TOKENIZER):
        try:
            digest.update(sha256_of(path).encode())
        except OSError as error:
            raise FilmstillError(f"{path}: cannot be read ({error.strerror}); import the encoder again") from None
    return digest.hexdigest()
