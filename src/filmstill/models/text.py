"""Prompts to token vectors.

The embedded encoder has no weights: every word is a fixed Gaussian vector found by the word's hash, so
synonyms are learned by the network, not here. Rows after the last word are zero and are attended to, as
Wan2.1's released weights were trained.
"""

import re
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from filmstill.runtime.randomness import generator

HASHED_WORDS = "hashed_words"  # its `kind` in encoder.json


class TextEncoder(Protocol):
    """What a pipeline asks of an encoder."""

    text_len: int

    def prepare(self, prompts: list[str]) -> None:
        """See to it that `encode` has these prompts at hand without any weights in memory."""

    def encode(self, prompts: list[str]) -> Tensor:
        """Token vectors [B, text_len, text_dim], zero past the last token."""


class HashedWords:
    """`encode(prompts) -> [B, text_len, text_dim]` for sizes given once."""

    def __init__(self, text_len: int, text_dim: int) -> None:
        self.text_len = text_len
        self.text_dim = text_dim

    def prepare(self, prompts: list[str]) -> None:
        """Nothing to do: there are no weights."""

    def encode(self, prompts: list[str]) -> Tensor:
        """Token vectors, zero past the last word; words past `text_len` are dropped. An empty prompt is all zero."""
        out = torch.zeros(len(prompts), self.text_len, self.text_dim)
        for row, prompt in zip(out, prompts, strict=True):
            words = re.findall(r"\w+", prompt.lower())[: self.text_len]
            if words:
                row[: len(words)] = torch.stack([_vector(word, self.text_dim) for word in words])
        return out


@lru_cache(maxsize=65536)
def _vector(word: str, dim: int) -> Tensor:
    return torch.randn(dim, generator=generator(0, "word", word))
