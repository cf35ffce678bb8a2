"""Cache of encoded prompts on disk, shared by processes and nodes.

One file per prompt, named by the hash of encoder and prompt, so vectors of another encoder are never returned. Writes
are atomic, so several processes may write the same prompt at the same time. A damaged file counts as missing.
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

PAUSES = (0.5, 1, 2, 4, 8, 16, 32)  # seconds between attempts: NFS caches for up to 60 s that a file is missing


@dataclass(frozen=True)
class PromptCache:
    """encoder: identifies everything that a prompt's vectors depend on: weights, tokenizer, length, dtype."""

    folder: Path
    encoder: str

    def holds(self, prompt: str) -> bool:
        """Whether a file for the prompt exists. It is not read, so `get` may still find it damaged."""
        return self._path(prompt).is_file()

    def get(self, prompts: list[str]) -> list[Tensor | None]:
        """Token vectors [tokens, text_dim] of each prompt; None if missing or damaged."""
        return [self._read(self._path(prompt)) for prompt in prompts]

    def wait_for(self, prompt: str) -> Tensor:
        """Token vectors [tokens, text_dim] that another process has put, which a network file system may show late.

        Raises FilmstillError if they are still missing after a minute.
        """
        path = self._path(prompt)
        for pause in (0, *PAUSES):
            time.sleep(pause)
            if (rows := self._read(path)) is not None:
                return rows
        raise FilmstillError(
            f"{self.folder}: {platform.node()} sees no complete {path.name} after {sum(PAUSES):g} s, of the prompt "
            f"{prompt[:40]!r} that the job has encoded; put {self.folder} on a file system that all nodes share, "
            "delete the file if it is damaged, and run again"
        )

    def put(self, prompt: str, rows: Tensor) -> None:
        """Write a prompt's token vectors [tokens, text_dim] to the cache."""
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
