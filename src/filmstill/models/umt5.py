"""Wan's text encoder: UMT5-XXL through transformers, behind a cache of prompts.

Notable: reads Wan's `models_t5_umt5-xxl-enc-bf16.pth` and Hugging Face's `text_encoder/` into one folder of ours;
the network is loaded when a prompt is missing from the cache, and let go of afterwards; a prompt is encoded alone
and without padding, so its vectors are the same bits whatever else was asked for and wherever a run was killed; the
processes of a job divide the prompts, and the network's weights lie spread over them.

Source: UMT5 (arXiv:2304.09151); Wan2.1's `wan/modules/{t5,tokenizers}.py` for the names, the cleaning and the length.
"""

import hashlib
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
from filmstill.models.released import Weights, check_names, open_weights, read_json
from filmstill.runtime import distributed
from filmstill.runtime.distributed import Spread, is_first
from filmstill.runtime.files import sha256_of, write_json, write_text
from filmstill.runtime.progress import progress
from filmstill.runtime.tensor_stream import STORED, stream_tensors

FACTS, WEIGHTS, TOKENIZER = "encoder.json", "encoder.safetensors", "tokenizer.json"
KIND = "umt5"
END = "</s>"

# What no tensor's shape tells; every released UMT5 has these.
FIXED = {"relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu"}

EMBEDDING, TIED = "shared.weight", "encoder.embed_tokens.weight"  # one tensor under two of Hugging Face's names
BLOCK_NAMES = {  # Hugging Face's to Wan's
    "layer.0.layer_norm": "norm1",
    "layer.0.SelfAttention.q": "attn.q",
    "layer.0.SelfAttention.k": "attn.k",
    "layer.0.SelfAttention.v": "attn.v",
    "layer.0.SelfAttention.o": "attn.o",
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.1.layer_norm": "norm2",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",  # the branch with the GELU
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
}


def clean_prompt(text: str) -> str:
    """As Wan cleans it: mojibake and full-width letters mended, HTML unescaped twice, single spaces."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip()


def wan_names(num_layers: int) -> dict[str, str]:
    """Hugging Face's name of every tensor of the encoder to Wan's."""
    modules = {"shared": "token_embedding", "encoder.final_layer_norm": "norm"}
    for i in range(num_layers):
        modules |= {f"encoder.block.{i}.{theirs}": f"blocks.{i}.{wans}" for theirs, wans in BLOCK_NAMES.items()}
    return {f"{theirs}.weight": f"{wans}.weight" for theirs, wans in modules.items()}


def import_umt5(source: Path, tokenizer: Path, folder: Path, text_len: int = 512) -> None:
    """Check a released encoder and write it to `folder`: encoder.safetensors, tokenizer.json and, last, encoder.json.

    source: Wan's .pth, or a folder in Hugging Face's layout (config.json beside one file or shards). tokenizer: a
    fast tokenizer's tokenizer.json, or its folder. Raises FilmstillError for anything that is not this network.
    """
    tokenizer = tokenizer / TOKENIZER if tokenizer.is_dir() else tokenizer
    weights = open_weights(source)
    names = _names_in(source, weights)
    config = {**_sizes(source, weights, names), **FIXED}
    _check_config(source / "config.json", config)
    wanted = {names[name]: tuple(p.shape) for name, p in _empty_network(config).state_dict().items() if name != TIED}
    check_names(source, {name: weights.shape(name) for name in weights if name != TIED}, wanted)
    if strange := [name for name in names.values() if weights.dtype(name) not in STORED]:
        dtype, allowed = weights.dtype(strange[0]), ", ".join(STORED.values())
        raise FilmstillError(f"{source}: {strange[0]} is of {dtype}; one of {allowed} is needed")
    _check_tokenizer(tokenizer, config["vocab_size"])
    (folder / FACTS).unlink(missing_ok=True)  # a folder without it is no encoder
    stream_tensors(folder / WEIGHTS, {name: weights[theirs] for name, theirs in names.items()}, {}, lambda _bytes: None)
    write_text(folder / TOKENIZER, tokenizer.read_text(encoding="utf-8"))
    write_json(folder / FACTS, {"kind": KIND, "config": config, "text_len": text_len, "sha256": _digest(folder)})


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
        alone = distributed.size() == 1
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
        missing = distributed.agreed([prompt for prompt in asked if is_first() and not self.cache.holds(prompt)])
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
        processes, tokens = distributed.size(), self._tokens(prompts)
        mine = slice(distributed.rank(), None, processes)
        with progress("text", len(prompts), unit="prompt") if is_first() else nullcontext() as bar:
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
        if longest > self.text_len and is_first():
            cut = sum(len(ids) > self.text_len for ids in whole)
            print(
                f"warning: {cut} of {len(prompts)} prompts are longer than {self.text_len} tokens and were cut;"
                f" the longest has {longest}",
                file=sys.stderr,
            )
        return [ids if len(ids) <= self.text_len else [*ids[: self.text_len - 1], ids[-1]] for ids in whole]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _open_tokenizer(self.folder / TOKENIZER)

    def _placed(self) -> nn.Module:
        """The network on its device, or spread over the processes; loaded if need be."""
        if self._network is None:
            if _digest(self.folder) != self.digest:
                raise FilmstillError(f"{self.folder}: its files are not those {FACTS} was written for; import it again")
            weights, spread = open_weights(self.folder / WEIGHTS), distributed.spread()
            if spread is None:
                self._network = _load_network(weights, self.config, self.device, self.dtype)
            else:  # from the host's memory a block at a time: training's networks may be on the device already
                whole = _load_network(weights, self.config, torch.device("cpu"), self.dtype)
                self._network = _spread(whole, spread, self.device)
        return self._network


def _names_in(source: Path, weights: Weights) -> dict[str, str]:
    """Hugging Face's name of every tensor to the source's: Wan's or Hugging Face's, whichever it has more of."""
    blocks = {match[1] for name in weights if (match := re.match(r"(?:encoder\.block|blocks)\.(\d+)\.", name))}
    wan = wan_names(len(blocks))
    layouts = (wan, {name: name for name in wan})
    names = max(layouts, key=lambda names: sum(name in weights for name in names.values()))
    if not any(name in weights for name in names.values()):
        held = ", ".join(sorted(weights)[:3]) or "nothing"
        raise FilmstillError(f"{source}: not a UMT5 encoder under Wan's or Hugging Face's names; it holds {held}, …")
    return names


def _sizes(source: Path, weights: Weights, names: dict[str, str]) -> dict[str, Any]:
    """The sizes that UMT5Config needs, from the shapes of the embedding and of the first block."""

    def matrix(name: str) -> tuple[int, ...]:
        theirs = names.get(name, name)
        shape = weights.shape(theirs) if theirs in weights else ()
        if len(shape) != 2 or 0 in shape:
            raise FilmstillError(f"{source}: not the weights of this network: {theirs} is missing or no matrix")
        return shape

    block = "encoder.block.0.layer"
    vocab_size, d_model = matrix(EMBEDDING)
    buckets, heads = matrix(f"{block}.0.SelfAttention.relative_attention_bias.weight")
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_kv": matrix(f"{block}.0.SelfAttention.q.weight")[0] // heads,
        "d_ff": matrix(f"{block}.1.DenseReluDense.wi_0.weight")[0],
        "num_layers": (len(names) - 2) // len(BLOCK_NAMES),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def _check_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse a config.json, where there is one, that says otherwise than the tensors."""
    said = read_json(path) if path.is_file() else {}
    differing = [f"{key} {said[key]} (needed: {ours})" for key, ours in config.items() if said.get(key, ours) != ours]
    if differing:
        raise FilmstillError(f"{path}: not the encoder whose weights are beside it: {', '.join(differing)}")


def _check_tokenizer(path: Path, vocab_size: int) -> None:
    tokenizer = _open_tokenizer(path)
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > vocab_size:
        raise FilmstillError(f"{path}: {tokens} tokens, the encoder's embedding has {vocab_size}")
    if tokenizer.encode("").ids != [tokenizer.token_to_id(END)]:
        raise FilmstillError(f"{path}: ends no prompt with {END}, as UMT5's tokenizer does")


def _open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither pads nor cuts, whatever its file says."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise FilmstillError(f"{path}: not a fast tokenizer's file ({str(error).splitlines()[0][:120]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _empty_network(config: dict[str, Any]) -> nn.Module:
    """UMT5's encoder on "meta"."""
    from transformers import UMT5Config, UMT5EncoderModel  # five seconds

    with torch.device("meta"):
        return UMT5EncoderModel(UMT5Config(**config)).eval()


def _load_network(weights: Weights, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> nn.Module:
    network: Any = _empty_network(config)
    tensors = {name: weights[name].to(device, dtype) for name in weights}
    network.load_state_dict({**tensors, TIED: tensors[EMBEDDING]}, assign=True)
    network.tie_weights()  # one parameter again: two would be gathered twice where the network is spread
    return network.requires_grad_(False)


def _spread(network: Any, spread: Spread, device: torch.device) -> nn.Module:
    """Its weights divided over the processes in place: a group a block, and one for the embedding and the last norm."""
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    if device.type != spread.device:  # text.placement: cpu beside GPUs
        spread = replace(spread, device=device.type)
    offload = CPUOffloadPolicy() if spread.offload and device.type == "cuda" else OffloadPolicy()
    for group in (*network.encoder.block, network):
        fully_shard(group, mesh=spread.mesh, offload_policy=offload)
    return network


def _digest(folder: Path) -> str:
    """SHA-256 over the hashes of the weights' and the tokenizer's file."""
    digest = hashlib.sha256()
    for path in (folder / WEIGHTS, folder / TOKENIZER):
        try:
            digest.update(sha256_of(path).encode())
        except OSError as error:
            raise FilmstillError(f"{path}: cannot be read ({error.strerror}); import the encoder again") from None
    return digest.hexdigest()
