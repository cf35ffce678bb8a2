"""Import Wan's text encoder, UMT5-XXL, into filmstill's own folder of it (`models.umt5_folder`).

Both released layouts are read: Wan's `models_t5_umt5-xxl-enc-bf16.pth` and Hugging Face's `text_encoder/`.

Source: UMT5 (arXiv:2304.09151); names and text length from Wan2.1's `wan/modules/{t5,tokenizers}.py`.
"""

import re
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.formats.families import check_dtypes, refuse_quantized
from filmstill.formats.released_files import read_released_json
from filmstill.formats.weight_files import Weights, check_names, open_weights
from filmstill.models.text import FACTS
from filmstill.models.umt5_folder import (
    EMBEDDING,
    KIND,
    TIED,
    TOKENIZER,
    WEIGHTS,
    digest_of,
    empty_network,
    open_tokenizer,
)
from filmstill.runtime.files import write_json, write_text
from filmstill.runtime.tensor_stream import stream_tensors

END = "</s>"

# Settings that no tensor's shape shows; every released UMT5 has these.
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
    """Map Hugging Face's name of every tensor of the encoder to Wan's."""
    modules = {"shared": "token_embedding", "encoder.final_layer_norm": "norm"}
    for i in range(num_layers):
        modules |= {f"encoder.block.{i}.{hf}": f"blocks.{i}.{wan}" for hf, wan in BLOCK_NAMES.items()}
    return {f"{hf}.weight": f"{wan}.weight" for hf, wan in modules.items()}


def import_umt5(source: Path, tokenizer: Path, folder: Path, text_len: int = 512) -> None:
    """Check a released encoder and write it to `folder`: encoder.safetensors, tokenizer.json and, last, encoder.json.

    source: Wan's .pth, or a folder in Hugging Face's layout (config.json beside one file or shards). tokenizer: a
    fast tokenizer's tokenizer.json, or its folder. text_len: tokens that a prompt is cut or padded to.
    Raises FilmstillError for anything that is not a UMT5 encoder and its tokenizer.
    """
    tokenizer = tokenizer / TOKENIZER if tokenizer.is_dir() else tokenizer
    weights, names, config = check_umt5(source, tokenizer)
    (folder / FACTS).unlink(missing_ok=True)  # until it is written again, the folder is not an encoder
    stream_tensors(folder / WEIGHTS, {name: weights[stored] for name, stored in names.items()}, {}, lambda _bytes: None)
    write_text(folder / TOKENIZER, tokenizer.read_text(encoding="utf-8"))
    write_json(folder / FACTS, {"kind": KIND, "config": config, "text_len": text_len, "sha256": digest_of(folder)})


def check_umt5(source: Path, tokenizer: Path) -> tuple[Weights, dict[str, str], dict[str, Any]]:
    """(weights, Hugging Face's name of every tensor to its name there, sizes) of a released encoder.

    Raises FilmstillError for anything that `import_umt5` refuses. Headers are read, no weights.
    """
    weights = open_weights(source)
    refuse_quantized(source, weights)
    names = _names_in(source, weights)
    config = {**_sizes(source, weights, names), **FIXED}
    _check_config(source / "config.json", config)
    expected = {names[name]: tuple(p.shape) for name, p in empty_network(config).state_dict().items() if name != TIED}
    check_names(source, {name: weights.shapes[name] for name in weights if name != TIED}, expected)
    check_dtypes(source, {stored: weights.dtypes[stored] for stored in names.values()})
    _check_tokenizer(tokenizer, config["vocab_size"])
    return weights, names, config


def _names_in(source: Path, weights: Weights) -> dict[str, str]:
    """Map Hugging Face's name of every tensor to the source's: Wan's names or Hugging Face's, whichever match more."""
    blocks = {match[1] for name in weights if (match := re.match(r"(?:encoder\.block|blocks)\.(\d+)\.", name))}
    wan = wan_names(len(blocks))
    layouts = (wan, {name: name for name in wan})
    names = max(layouts, key=lambda names: sum(name in weights for name in names.values()))
    if not any(name in weights for name in names.values()):
        listed = ", ".join(sorted(weights)[:3]) or "nothing"
        raise FilmstillError(
            f"{source}: not a UMT5 encoder under Wan's or Hugging Face's names; it contains {listed}, …"
        )
    return names


def _sizes(source: Path, weights: Weights, names: dict[str, str]) -> dict[str, Any]:
    """The sizes that UMT5Config needs, from the shapes of the embedding and of the first block."""

    def matrix(name: str) -> tuple[int, ...]:
        stored = names.get(name, name)
        shape = weights.shapes[stored] if stored in weights else ()
        if len(shape) != 2 or 0 in shape:
            raise FilmstillError(f"{source}: not the weights of this network: {stored} is missing or not a matrix")
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
    """Raise FilmstillError if there is a config.json and it contradicts the tensors."""
    declared = read_released_json(path) if path.is_file() else {}
    differing = [
        f"{key} {declared[key]} (needed: {needed})"
        for key, needed in config.items()
        if declared.get(key, needed) != needed
    ]
    if differing:
        raise FilmstillError(f"{path}: not the encoder whose weights are beside it: {', '.join(differing)}")


def _check_tokenizer(path: Path, vocab_size: int) -> None:
    tokenizer = open_tokenizer(path)
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > vocab_size:
        raise FilmstillError(f"{path}: {tokens} tokens, the encoder's embedding has {vocab_size}")
    if tokenizer.encode("").ids != [tokenizer.token_to_id(END)]:
        raise FilmstillError(f"{path}: does not end every prompt with {END}, as UMT5's tokenizer does")
