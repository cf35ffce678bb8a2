"""Encoded prompts on disk: each is encoded once, whichever process asks first.

Notable: one small file a prompt, named by the hash of encoder and prompt, so another encoder's vectors are never
found; written whole or not at all, so processes may write the same prompt at once; a damaged file counts as absent;
what another node has written is waited for, since a network file system may show it late.
"""

import hashlib
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime.tensor_files import load_tensors, save_tensors

PAUSES = (0.5, 1, 2, 4, 8, 16, 32)  # seconds between looks: NFS may remember for 60 that a file was not there


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

    def wait_for(self, prompt: str) -> Tensor:
        """Token vectors [tokens, text_dim] that another process has put.

        Raises FilmstillError when this node does not see them after a minute.
        """
        path = self._path(prompt)
        for pause in (0, *PAUSES):
            time.sleep(pause)
            if (rows := self._read(path)) is not None:
                return rows
        raise FilmstillError(
            f"{self.folder}: {platform.node()} sees no whole {path.name} after {sum(PAUSES):g} s, of the prompt "
            f"{prompt[:40]!r} that the job has encoded; put {self.folder} on a file system that all nodes share, "
            "delete the file where it is damaged, and run again"
        )

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
