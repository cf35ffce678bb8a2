"""Text encoders: prompts to token vectors.

The embedded encoder has no weights: each word maps to a fixed Gaussian vector, drawn from a generator that is seeded
with the word, so synonyms are learned by the video network. Rows after the last word are zero and are attended to, as
in the training of Wan2.1's released weights.
"""

import re
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from filmstill.runtime.randomness import generator

FACTS = "encoder.json"  # an encoder's kind and sizes, in its folder
HASHED_WORDS = "hashed_words"  # `kind` of the embedded encoder in encoder.json


class TextEncoder(Protocol):
    """Interface of a text encoder."""

    text_len: int

    def prepare(self, prompts: list[str]) -> None:
        """Encode these prompts ahead, so that `encode` needs no weights. Collective: every rank must call it."""

    def encode(self, prompts: list[str]) -> Tensor:
        """Token vectors [B, text_len, text_dim], zero after the last token."""


class HashedWords:
    """The embedded encoder: one vector of `text_dim` per word, at most `text_len` words."""

    def __init__(self, text_len: int, text_dim: int) -> None:
        self.text_len = text_len
        self.text_dim = text_dim

    def prepare(self, prompts: list[str]) -> None:
        """No effect, since there are no weights."""

    def encode(self, prompts: list[str]) -> Tensor:
        """Token vectors [B, text_len, text_dim], zero after the last word; words after `text_len` are dropped."""
        out = torch.zeros(len(prompts), self.text_len, self.text_dim)
        for row, prompt in zip(out, prompts, strict=True):
            words = re.findall(r"\w+", prompt.lower())[: self.text_len]
            if words:
                row[: len(words)] = torch.stack([_vector(word, self.text_dim) for word in words])
        return out


@lru_cache(maxsize=65536)
def _vector(word: str, dim: int) -> Tensor:
    return torch.randn(dim, generator=generator(0, "word", word))
