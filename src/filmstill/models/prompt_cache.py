"""Cache of encoded prompts on disk, shared by processes and nodes.

One file per prompt, named by the hash of encoder and prompt, so vectors of another encoder are never returned. Writes
are atomic, so several processes may write the same prompt at the same time. A damaged file counts as missing and is
written again. What cannot be written is kept in memory until the process ends: the cache only saves time.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.runtime import distributed
from filmstill.runtime.tensor_files import load_tensors, save_tensors

log = logging.getLogger(__name__)

PAUSES = (0.5, 1, 2, 4, 8, 16, 32)  # seconds between attempts: NFS caches for up to 60 s that a file is missing


@dataclass(frozen=True)
class PromptCache:
    """encoder: identifies everything that a prompt's vectors depend on: weights, tokenizer, length, dtype.

    _kept: rows that no rank could write. _refused, _reasons: those that this rank could not write since the last
    `share_kept`, and why.
    """

    folder: Path
    encoder: str
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _refused: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _reasons: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def missing(self, prompts: Iterable[str]) -> list[str]:
        """The prompts whose entry is missing or damaged. Every entry is read, one at a time."""
        damaged: list[Path] = []
        absent = [prompt for prompt in prompts if self._read(prompt, damaged) is None]
        _warn_of(damaged)
        return absent

    def get(self, prompts: Iterable[str]) -> list[Tensor | None]:
        """Token vectors [tokens, text_dim] of each prompt; None if missing or damaged."""
        damaged: list[Path] = []
        rows = [self._read(prompt, damaged) for prompt in prompts]
        _warn_of(damaged)
        return rows

    def wait_for(self, prompt: str) -> Tensor:
        """Token vectors [tokens, text_dim] that another process has put, which a network file system may show late.

        Raises FilmstillError if they are still missing after a minute.
        """
        path = self._path(prompt)
        for pause in (0, *PAUSES):
            time.sleep(pause)
            if (rows := self._read(prompt, [])) is not None:
                return rows
        raise FilmstillError(
            f"{self.folder}: {platform.node()} sees no complete {path.name} after {sum(PAUSES):g} s, of the prompt "
            f"{prompt[:40]!r} that the job has encoded; put {self.folder} on a file system that all nodes share, "
            "delete the file if it is damaged, and run again"
        )

    def put(self, prompt: str, rows: Tensor) -> None:
        """Write a prompt's token vectors [tokens, text_dim]; rows that cannot be written wait for `share_kept`."""
        try:
            save_tensors(self._path(prompt), {"rows": rows})
        except FilmstillError as error:
            self._refused[prompt] = rows
            self._reasons.append(getattr(error.__cause__, "strerror", None) or str(error))

    def share_kept(self) -> None:
        """Keep what could not be written in the memory of every rank; rank 0 logs the first reason, once.

        Collective: every rank must call it.
        """
        reason = distributed.first_message(next(iter(self._reasons), None))
        if reason is None:
            return
        if not self._kept and distributed.is_rank0():
            log.warning(
                "%s: encoded prompts cannot be cached (%s); they stay in memory, and the next run encodes them again",
                *(self.folder, reason),
            )
        for refused in distributed.all_gather(self._refused):
            self._kept.update(refused)
        self._refused.clear()
        self._reasons.clear()

    def _path(self, prompt: str) -> Path:
        name = hashlib.sha256(json.dumps([self.encoder, prompt]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, prompt: str, damaged: list[Path]) -> Tensor | None:
        """The prompt's rows, None if there are none; the path of a damaged file is added to `damaged`."""
        if prompt in self._kept:
            return self._kept[prompt]
        path = self._path(prompt)
        if not os.path.isfile(path):  # unlike Path.is_file, False also where the folder cannot be looked into
            return None
        try:
            return load_tensors(path)[0]["rows"]
        except (FilmstillError, KeyError):
            damaged.append(path)
            return None


def _warn_of(damaged: list[Path]) -> None:
    if damaged:
        others = f" and {len(damaged) - 1} others" if damaged[1:] else ""
        log.warning("%s%s: damaged entry of the cache of encoded prompts; encoding it again", damaged[0], others)
