"""Wan's text encoder on disk: UMT5-XXL as it is released, and as a folder of ours.

Notable: reads Wan's `models_t5_umt5-xxl-enc-bf16.pth` and Hugging Face's `text_encoder/`, whichever it is given.

Source: UMT5 (arXiv:2304.09151); Wan2.1's `wan/modules/{t5,tokenizers}.py` for the names and the length.
"""

import re
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.formats.weight_files import Weights, check_names, open_weights
from filmstill.models.umt5_folder import (
    EMBEDDING,
    FACTS,
    KIND,
    TIED,
    TOKENIZER,
    WEIGHTS,
    digest_of,
    empty_network,
    open_tokenizer,
)
from filmstill.runtime.files import read_json, write_json, write_text
from filmstill.runtime.tensor_stream import STORED, stream_tensors

END = "</s>"

# What no tensor's shape tells; every released UMT5 has these.
FIXED = {"relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu"}

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
    wanted = {names[name]: tuple(p.shape) for name, p in empty_network(config).state_dict().items() if name != TIED}
    check_names(source, {name: weights.shape(name) for name in weights if name != TIED}, wanted)
    if strange := [name for name in names.values() if weights.dtype(name) not in STORED]:
        dtype, allowed = weights.dtype(strange[0]), ", ".join(STORED.values())
        raise FilmstillError(f"{source}: {strange[0]} is of {dtype}; one of {allowed} is needed")
    _check_tokenizer(tokenizer, config["vocab_size"])
    (folder / FACTS).unlink(missing_ok=True)  # a folder without it is no encoder
    stream_tensors(folder / WEIGHTS, {name: weights[theirs] for name, theirs in names.items()}, {}, lambda _bytes: None)
    write_text(folder / TOKENIZER, tokenizer.read_text(encoding="utf-8"))
    write_json(folder / FACTS, {"kind": KIND, "config": config, "text_len": text_len, "sha256": digest_of(folder)})


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
    tokenizer = open_tokenizer(path)
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > vocab_size:
        raise FilmstillError(f"{path}: {tokens} tokens, the encoder's embedding has {vocab_size}")
    if tokenizer.encode("").ids != [tokenizer.token_to_id(END)]:
        raise FilmstillError(f"{path}: ends no prompt with {END}, as UMT5's tokenizer does")
