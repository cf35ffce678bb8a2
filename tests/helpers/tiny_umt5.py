"""A UMT5 encoder with a few thousand random weights and a matching tokenizer, under the released file names."""

import string
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

from filmstill.formats.umt5 import FIXED, wan_names
from filmstill.runtime.files import write_json

WAN_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
SIZES = {
    "vocab_size": 256,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 3,  # 3 heads of 8 differ from d_model, which UMT5 allows
    "relative_attention_num_buckets": 32,
}


def write_tokenizer(path: Path, words: list[str]) -> None:
    """Write a tokenizer.json built like umt5's: Unigram, </s> appended, ids 0, 1, 2 for <pad>, </s>, <unk>.

    Each word is one token; other text is split into printable ASCII characters. At most 256 tokens in all.
    """
    specials = ["<pad>", "</s>", "<unk>"]
    characters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = [(token, 0.0) for token in specials] + [(token, -10.0) for token in characters]
    pieces += [(f"▁{word}", -5.0) for word in dict.fromkeys(words)]
    assert len(pieces) <= SIZES["vocab_size"], f"{len(pieces)} tokens"
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(specials)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def write_encoder(path: Path, layout: Literal["wan", "diffusers"], seed: int) -> None:
    """Write the same weights as "wan", a .pth in bfloat16, or "diffusers", a folder with config.json in float32."""
    names, weights = wan_names(SIZES["num_layers"]), random_weights(seed)
    if layout == "wan":
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({names[name]: tensor.bfloat16() for name, tensor in weights.items()}, path)
    else:
        write_json(path / "config.json", {"model_type": "umt5", **SIZES, **FIXED})
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def random_weights(seed: int) -> dict[str, Tensor]:
    """Float32 tensors by Hugging Face's names, with values exact in bfloat16 and scales for uneven attention."""
    random = torch.Generator().manual_seed(seed)
    dim, inner, ff = SIZES["d_model"], SIZES["num_heads"] * SIZES["d_kv"], SIZES["d_ff"]
    shapes = {"shared": (SIZES["vocab_size"], dim), "layer_norm": (dim,), "SelfAttention.o": (dim, inner)}
    shapes |= {f"SelfAttention.{part}": (inner, dim) for part in "qkv"}
    shapes |= {"relative_attention_bias": (SIZES["relative_attention_num_buckets"], SIZES["num_heads"])}
    shapes |= {"wi_0": (ff, dim), "wi_1": (ff, dim), "wo": (dim, ff)}
    weights = {}
    for name in wan_names(SIZES["num_layers"]):
        kind = next(kind for kind in shapes if name.endswith(f"{kind}.weight"))
        drawn = torch.randn(shapes[kind], generator=random)
        if kind == "layer_norm":
            drawn = 1 + 0.2 * drawn
        elif kind.startswith(("Self", "w")):
            drawn = drawn * shapes[kind][1] ** -0.5
        weights[name] = drawn.bfloat16().float()
    return weights
