"""Wan's text encoder: UMT5-XXL (transformers) behind a cache of encoded prompts.

The network is loaded when a prompt is missing from the cache and freed afterwards. Each prompt is encoded alone and
without padding, so its bits do not depend on the other prompts or on where a run was killed. The ranks of a job divide
the prompts, and the network's weights are sharded over them.

Source: UMT5 (arXiv:2304.09151); Wan2.1's `wan/modules/tokenizers.py` for the cleaning.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ftfy
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from filmstill.errors import FilmstillError, require
from filmstill.models.prompt_cache import PromptCache
from filmstill.models.text import FACTS
from filmstill.models.umt5_folder import KIND, TOKENIZER, WEIGHTS, digest_of, load_network, open_tokenizer
from filmstill.runtime import distributed
from filmstill.runtime.distributed import ShardingConfig, is_rank0
from filmstill.runtime.files import read_json
from filmstill.runtime.progress import progress
from filmstill.runtime.unescape import unescape_twice

AGAIN = "import the encoder again"

log = logging.getLogger(__name__)


def clean_prompt(text: str) -> str:
    """Clean a prompt as Wan does: repair mojibake and full-width letters, unescape HTML twice, collapse whitespace."""
    return re.sub(r"\s+", " ", unescape_twice(ftfy.fix_text(text))).strip()


@dataclass
class Umt5:
    """Text encoder that reads prompts from the cache and encodes those that are missing.

    placement: "cpu" runs the network on the CPU and "offload" on `device`; both free it afterwards and load it again
    when needed. "gpu" keeps it on `device`. dtype: of computation and of cached vectors. Wan's weights are bfloat16
    (11 GB); float32 takes twice that and is faster on a CPU without bfloat16 arithmetic.
    """

    folder: Path
    config: dict[str, Any]
    text_len: int
    digest: str
    cache: PromptCache
    placement: str
    device: torch.device
    dtype: torch.dtype
    _network: nn.Module | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.text_dim: int = self.config["d_model"]

    @classmethod
    def load(cls, folder: Path, cache: Path, placement: str, device: torch.device, dtype: torch.dtype) -> "Umt5":
        """Open a folder written by `import_umt5`, reading only its encoder.json.

        Raises FilmstillError if that file is missing or describes another kind of encoder.
        """
        facts = read_json(folder / FACTS)
        require(facts.get("kind") == KIND, f"{folder / FACTS}: kind", facts.get("kind"), f"{KIND!r}; {AGAIN}")
        for key, kind, allowed in (
            ("config", dict, "sizes"),
            ("text_len", int, "a number"),
            ("sha256", str, "a digest"),
        ):
            require(type(facts.get(key)) is kind, f"{folder / FACTS}: {key}", facts.get(key), f"{allowed}; {AGAIN}")
        config, text_len, digest = facts["config"], facts["text_len"], facts["sha256"]
        width = config.get("d_model")
        require(type(width) is int, f"{folder / FACTS}: config: d_model", width, f"a number; {AGAIN}")
        prompts = PromptCache(cache, f"{digest} {text_len} {dtype}")
        device = torch.device("cpu") if placement == "cpu" else device
        return cls(folder, config, text_len, digest, prompts, placement, device, dtype)

    def encode(self, prompts: list[str]) -> Tensor:
        """Token vectors [B, text_len, text_dim] on the CPU in `dtype`, zero after a prompt's last token (its </s>).

        With several ranks the prompts must have been prepared: running the sharded network is a collective, `encode`
        is not. Raises FilmstillError for a prompt that was not prepared.
        """
        cleaned = [clean_prompt(prompt) for prompt in prompts]
        unique = list(dict.fromkeys(cleaned))
        if distributed.world_size() == 1:
            rows = self._read_or_encode(unique)
        else:
            rows = {prompt: self.cache.wait_for(prompt) for prompt in unique}
        out = torch.zeros(len(prompts), self.text_len, self.text_dim, dtype=self.dtype)
        for row, prompt in zip(out, cleaned, strict=True):
            row[: len(rows[prompt])] = rows[prompt]
        return out

    def prepare(self, prompts: list[str]) -> None:
        """Encode the prompts that have no whole file in the cache, which several jobs may share.

        Collective: every rank must call it, with the same prompts.
        """
        unique = dict.fromkeys(clean_prompt(prompt) for prompt in prompts)
        # Only rank 0 looks for files: NFS clients remember a failed look-up, which would hide files written later.
        missing = distributed.broadcast(self.cache.missing(unique) if is_rank0() else [])
        if missing:
            self._encode_shares(missing)
        self._free_network()

    def _free_network(self) -> None:
        """Free the network's memory, unless `placement` keeps it."""
        if self.placement != "gpu" and self._network is not None:
            self._network = None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _read_or_encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Vectors [tokens, text_dim] of cleaned prompts, for a world size of 1."""
        cached = zip(prompts, self.cache.get(prompts), strict=True)
        rows = {prompt: vectors for prompt, vectors in cached if vectors is not None}
        if missing := [prompt for prompt in prompts if prompt not in rows]:
            rows |= zip(missing, list(self._encode_each(missing, self._tokenize(missing))), strict=True)
            self.cache.share_kept()
        self._free_network()
        return rows

    def _encode_shares(self, prompts: list[str]) -> None:
        """Put cleaned prompts into the cache: each rank encodes a share, and all ranks run equally many passes."""
        world_size, tokens = distributed.world_size(), self._tokenize(prompts)
        share = slice(distributed.rank(), None, world_size)
        with progress("text", len(prompts), unit="prompt") if is_rank0() else nullcontext() as bar:
            for _ in self._encode_each(prompts[share], tokens[share]):
                if bar:
                    bar.update(min(world_size, len(prompts) - bar.n))
        if len(tokens[share]) < len(tokens[::world_size]):
            self._forward(tokens[0])  # the other ranks' last pass gathers this rank's shards
        self.cache.share_kept()  # also the barrier after which every rank reads

    def _encode_each(self, prompts: list[str], tokens: list[list[int]]) -> Iterator[Tensor]:
        """Encode cleaned prompts one by one; put each into the cache and yield its vectors [tokens, text_dim]."""
        for prompt, ids in zip(prompts, tokens, strict=True):
            rows = self._forward(ids)
            self.cache.put(prompt, rows)
            yield rows

    @torch.no_grad()
    def _forward(self, ids: list[int]) -> Tensor:
        """Vectors [tokens, text_dim] on the CPU. Collective if the network is sharded: every rank must call it."""
        return self._loaded()(torch.tensor([ids], device=self.device)).last_hidden_state[0].cpu()

    def _tokenize(self, prompts: list[str]) -> list[list[int]]:
        """Token ids ending with </s>, truncated to `text_len`; rank 0 logs how many prompts were truncated."""
        full = [self._tokenizer.encode(prompt).ids for prompt in prompts]
        longest = max(map(len, full))
        if longest > self.text_len and is_rank0():
            cut = sum(len(ids) > self.text_len for ids in full)
            log.warning(
                f"{cut} of {len(prompts)} prompts are longer than {self.text_len} tokens and were cut;"
                f" the longest has {longest}"
            )
        return [ids if len(ids) <= self.text_len else [*ids[: self.text_len - 1], ids[-1]] for ids in full]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.folder / TOKENIZER)

    def _loaded(self) -> nn.Module:
        """The network on its device, sharded if there are several ranks; loaded on the first call."""
        if self._network is None:
            if digest_of(self.folder) != self.digest:
                raise FilmstillError(f"{self.folder}: its files are not those {FACTS} was written for; import it again")
            weights, sharding = self.folder / WEIGHTS, distributed.sharding_config()
            if sharding is None:
                self._network = load_network(weights, self.config, self.device, self.dtype)
            else:  # loaded on the CPU, since the device may already be filled by the networks in training
                network = load_network(weights, self.config, torch.device("cpu"), self.dtype)
                self._network = _shard(network, sharding, self.device)
        return self._network


def _shard(network: Any, sharding: ShardingConfig, device: torch.device) -> nn.Module:
    """Shard the weights over the ranks in place: one group per block, and one for the embedding and the last norm."""
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    if device.type != sharding.device:  # text.placement is cpu in a job with GPUs
        sharding = replace(sharding, device=device.type)
    offload = CPUOffloadPolicy() if sharding.offload and device.type == "cuda" else OffloadPolicy()
    for group in (*network.encoder.block, network):
        fully_shard(group, mesh=sharding.mesh, offload_policy=offload)
    return network
