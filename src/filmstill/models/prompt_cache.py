"""Encoded prompts on disk: each is encoded once, whichever process asks first.

Notable: one small file a prompt, named by the hash of encoder and prompt, so another encoder's vectors are never
found; written whole or not at all, so processes may write the same prompt at once; a damaged file counts as absent.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.files import load_tensors, save_tensors


@dataclass(frozen=True)
class PromptCache:
    """`encoder` names all that changes a prompt's vectors: weights, tokenizer, length, dtype."""

    folder: Path
    encoder: str

    def holds(self, prompt: str) -> bool:
        """Whether there is a file for the prompt, unread: `get` may still find it damaged."""
        return self._path(prompt).is_file()

    def get(self, prompts: list[str]) -> list[Tensor | None]:
        """A prompt's token vectors [tokens, text_dim]; None for one that is absent or damaged."""
        return [self._read(self._path(prompt)) for prompt in prompts]

    def put(self, prompt: str, rows: Tensor) -> None:
        """Keep a prompt's token vectors [tokens, text_dim]."""
        save_tensors(self._path(prompt), {"rows": rows})

    def _path(self, prompt: str) -> Path:
        name = hashlib.sha256(json.dumps([self.encoder, prompt]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    @staticmethod
    def _read(path: Path) -> Tensor | None:
        try:
            return load_tensors(path)[0]["rows"]
        except FilmstillError:
            return None
