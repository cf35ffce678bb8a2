"""Names of the transformer's tensors: Wan's original ones, which filmstill uses, and diffusers'.

One table of modules is read in both directions. Any name that is not in it stays unchanged, so a name that already has
the target's spelling may be passed too. Prefixes of training wrappers (FSDP, activation checkpointing, compile) are
removed, and ComfyUI's.

Source: `wan/modules/model.py` of Wan2.1 and diffusers' `convert_wan_transformer_to_diffusers`.
"""

import re
from collections.abc import Mapping
from itertools import takewhile

# Modules around the network or around a module of it: in Self-Forcing, DataParallel and DDP, FSDP, activation
# checkpointing, torch.compile, ComfyUI.
WRAPPERS = {
    "model",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_orig_mod",
    "diffusion_model",
}

# Wan's modules to diffusers': outside the blocks, and within a block.
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_BLOCK = {
    **{f"self_attn.{wan}": f"attn1.{diffusers}" for wan, diffusers in _ATTENTION.items()},
    **{f"cross_attn.{wan}": f"attn2.{diffusers}" for wan, diffusers in _ATTENTION.items()},
    "norm3": "norm2",  # the norm before cross-attention: Wan numbers norms as it makes them, diffusers as they run
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_FROM_OUTSIDE = {diffusers: wan for wan, diffusers in _OUTSIDE.items()}
_FROM_BLOCK = {diffusers: wan for wan, diffusers in _BLOCK.items()}
_TOPS = {"blocks"} | {wan.split(".")[0] for wan in _OUTSIDE}


def to_diffusers(name: str) -> str:
    """Map Wan's `blocks.0.self_attn.q.weight` to diffusers' `blocks.0.attn1.to_q.weight`."""
    return _renamed(name, _OUTSIDE, _BLOCK)


def from_diffusers(name: str) -> str:
    """Map diffusers' names to Wan's: the inverse of `to_diffusers` on every name of the network."""
    return _renamed(name, _FROM_OUTSIDE, _FROM_BLOCK)


def strip_wrappers(name: str) -> str:
    """Map `model._fsdp_wrapped_module.blocks.0.…` to `blocks.0.…`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def leading_wrappers(name: str) -> str:
    """Wrappers before the first module of the network: "model.module" of `model.module.blocks.0.…`."""
    return ".".join(takewhile(WRAPPERS.__contains__, name.split(".")))


def to_wan(name: str) -> str:
    """Map a name of any spelling to Wan's."""
    return from_diffusers(strip_wrappers(name))


def is_transformer_name(name: str) -> bool:
    """Whether a name of any spelling starts with a module of the transformer."""
    return to_wan(name).split(".")[0] in _TOPS


def _renamed(name: str, outside: Mapping[str, str], block: Mapping[str, str]) -> str:
    in_block = re.fullmatch(r"(blocks\.\d+\.)(.+)", name)
    prefix, rest = in_block.groups() if in_block else ("", name)
    for old, new in (block if in_block else outside).items():
        if rest == old or rest.startswith(f"{old}."):
            return f"{prefix}{new}{rest.removeprefix(old)}"
    return name
