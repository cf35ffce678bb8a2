"""Wan's text encoder: UMT5-XXL through transformers, behind a cache of prompts.

Notable: the network is loaded when a prompt is missing from the cache, and let go of afterwards; a prompt is encoded
alone and without padding, so its vectors are the same bits whatever else was asked for and wherever a run was killed;
the processes of a job divide the prompts, and the network's weights lie spread over them.

Source: UMT5 (arXiv:2304.09151); Wan2.1's `wan/modules/tokenizers.py` for the cleaning.
"""

import html
import re
import sys
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

from filmstill.errors import FilmstillError
from filmstill.models.prompt_cache import PromptCache
from filmstill.models.umt5_folder import FACTS, KIND, TOKENIZER, WEIGHTS, digest_of, load_network, open_tokenizer
from filmstill.runtime import distributed
from filmstill.runtime.distributed import ShardingConfig, is_rank0
from filmstill.runtime.files import read_json
from filmstill.runtime.progress import progress


def clean_prompt(text: str) -> str:
    """As Wan cleans it: mojibake and full-width letters mended, HTML unescaped twice, single spaces."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip()


@dataclass
class Umt5:
    """`encode(prompts) -> [B, text_len, text_dim]` from the cache; what is missing there is encoded first.

    placement: "cpu": the network computes on the CPU; "offload": on `device`; either way it is let go of afterwards and
    read again when it is needed again; "gpu": it stays on `device`. dtype: what it computes in and the cache keeps:
    Wan's weights are bfloat16 (11 GB); float32 takes twice that, and is faster on a CPU without bfloat16 arithmetic.
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
        """The encoder of a folder that `import_umt5` wrote; reads its encoder.json alone."""
        facts = read_json(folder / FACTS)
        if facts.get("kind") != KIND or not {"config", "text_len", "sha256"} <= facts.keys():
            raise FilmstillError(f"{folder / FACTS}: kind {facts.get('kind')!r}, not a whole {KIND!r}; import it again")
        config, text_len, digest = facts["config"], facts["text_len"], facts["sha256"]
        prompts = PromptCache(cache, f"{digest} {text_len} {dtype}")
        device = torch.device("cpu") if placement == "cpu" else device
        return cls(folder, config, text_len, digest, prompts, placement, device, dtype)

    def encode(self, prompts: list[str]) -> Tensor:
        """Token vectors [B, text_len, text_dim] on the CPU in `dtype`, zero past a prompt's last token (its </s>).

        In a job of several processes the prompts must have been prepared: the network needs all of them at once.
        """
        cleaned = [clean_prompt(prompt) for prompt in prompts]
        asked = list(dict.fromkeys(cleaned))
        alone = distributed.world_size() == 1
        rows = self._found_or_made(asked) if alone else {prompt: self.cache.wait_for(prompt) for prompt in asked}
        out = torch.zeros(len(prompts), self.text_len, self.text_dim, dtype=self.dtype)
        for row, prompt in zip(out, cleaned, strict=True):
            row[: len(rows[prompt])] = rows[prompt]
        return out

    def prepare(self, prompts: list[str]) -> None:
        """Encode what has no file in the cache. The processes of a job all ask for the same prompts, and divide them;
        several jobs may share the cache."""
        asked = dict.fromkeys(clean_prompt(prompt) for prompt in prompts)
        # The first process looks for all: on another node a file that was looked for in vain may stay unseen for long.
        missing = distributed.broadcast([prompt for prompt in asked if is_rank0() and not self.cache.holds(prompt)])
        if missing:
            self._make_shares(missing)
        self._let_go()

    def _let_go(self) -> None:
        """Of the network's memory, unless it is to stay."""
        if self.placement != "gpu" and self._network is not None:
            self._network = None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _found_or_made(self, prompts: list[str]) -> dict[str, Tensor]:
        """Vectors [tokens, text_dim] of cleaned prompts, for a process alone."""
        found = zip(prompts, self.cache.get(prompts), strict=True)
        rows = {prompt: kept for prompt, kept in found if kept is not None}
        if missing := [prompt for prompt in prompts if prompt not in rows]:
            rows |= zip(missing, list(self._make(missing, self._tokens(missing))), strict=True)
        self._let_go()
        return rows

    def _make_shares(self, prompts: list[str]) -> None:
        """Put cleaned prompts into the cache: every process its share of them, all in as many passes."""
        processes, tokens = distributed.world_size(), self._tokens(prompts)
        mine = slice(distributed.rank(), None, processes)
        with progress("text", len(prompts), unit="prompt") if is_rank0() else nullcontext() as bar:
            for _ in self._make(prompts[mine], tokens[mine]):
                if bar:
                    bar.update(min(processes, len(prompts) - bar.n))
        if len(tokens[mine]) < len(tokens[::processes]):
            self._pass(tokens[0])  # the others' last pass gathers this process's weights too
        distributed.barrier()

    def _make(self, prompts: list[str], tokens: list[list[int]]) -> Iterator[Tensor]:
        """Vectors [tokens, text_dim] of cleaned prompts as they are encoded, each put into the cache on its way."""
        for prompt, ids in zip(prompts, tokens, strict=True):
            rows = self._pass(ids)
            self.cache.put(prompt, rows)
            yield rows

    @torch.no_grad()
    def _pass(self, ids: list[int]) -> Tensor:
        """[tokens, text_dim] on the CPU. Where the network is spread every process must make the pass."""
        return self._placed()(torch.tensor([ids], device=self.device)).last_hidden_state[0].cpu()

    def _tokens(self, prompts: list[str]) -> list[list[int]]:
        """Token ids with </s> at the end, cut to `text_len`; the first process says on stderr how many were cut."""
        whole = [self._tokenizer.encode(prompt).ids for prompt in prompts]
        longest = max(map(len, whole))
        if longest > self.text_len and is_rank0():
            cut = sum(len(ids) > self.text_len for ids in whole)
            print(
                f"warning: {cut} of {len(prompts)} prompts are longer than {self.text_len} tokens and were cut;"
                f" the longest has {longest}",
                file=sys.stderr,
            )
        return [ids if len(ids) <= self.text_len else [*ids[: self.text_len - 1], ids[-1]] for ids in whole]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.folder / TOKENIZER)

    def _placed(self) -> nn.Module:
        """The network on its device, or spread over the processes; loaded if need be."""
        if self._network is None:
            if digest_of(self.folder) != self.digest:
                raise FilmstillError(f"{self.folder}: its files are not those {FACTS} was written for; import it again")
            weights, sharding = self.folder / WEIGHTS, distributed.sharding_config()
            if sharding is None:
                self._network = load_network(weights, self.config, self.device, self.dtype)
            else:  # from the host's memory a block at a time: training's networks may be on the device already
                whole = load_network(weights, self.config, torch.device("cpu"), self.dtype)
                self._network = _shard(whole, sharding, self.device)
        return self._network


def _shard(network: Any, sharding: ShardingConfig, device: torch.device) -> nn.Module:
    """Its weights divided over the processes in place: a group a block, and one for the embedding and the last norm."""
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    if device.type != sharding.device:  # text.placement: cpu beside GPUs
        sharding = replace(sharding, device=device.type)
    offload = CPUOffloadPolicy() if sharding.offload and device.type == "cuda" else OffloadPolicy()
    for group in (*network.encoder.block, network):
        fully_shard(group, mesh=sharding.mesh, offload_policy=offload)
    return network
