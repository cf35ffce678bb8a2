"""Names of the transformer's tensors: Wan's original ones, which are ours, against diffusers'.

Notable: one table of modules read both ways; both maps are total (any other name stays as it is), so a name that is
already in the wanted spelling needs no asking; wrappers that training leaves in a name come off.

Source: `wan/modules/model.py` of Wan2.1 and diffusers' `convert_wan_transformer_to_diffusers`.
"""

import re
from collections.abc import Mapping

WRAPPERS = {"model", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"}

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
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in _ATTENTION.items()},
    "norm3": "norm2",  # the norm before cross-attention: Wan numbers norms as it makes them, diffusers as they run
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_FROM_OUTSIDE = {theirs: ours for ours, theirs in _OUTSIDE.items()}
_FROM_BLOCK = {theirs: ours for ours, theirs in _BLOCK.items()}
_TOPS = {"blocks"} | {ours.split(".")[0] for ours in _OUTSIDE}


def to_diffusers(name: str) -> str:
    """Wan's `blocks.0.self_attn.q.weight` to diffusers' `blocks.0.attn1.to_q.weight`."""
    return _renamed(name, _OUTSIDE, _BLOCK)


def from_diffusers(name: str) -> str:
    """The inverse of `to_diffusers` on every name of the network."""
    return _renamed(name, _FROM_OUTSIDE, _FROM_BLOCK)


def strip_wrappers(name: str) -> str:
    """`model._fsdp_wrapped_module.blocks.0.…` to `blocks.0.…`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def to_wan(name: str) -> str:
    """Any spelling to Wan's."""
    return from_diffusers(strip_wrappers(name))


def of_transformer(name: str) -> bool:
    """Whether a name in any spelling begins as the transformer's do."""
    return to_wan(name).split(".")[0] in _TOPS


def _renamed(name: str, outside: Mapping[str, str], block: Mapping[str, str]) -> str:
    within = re.fullmatch(r"(blocks\.\d+\.)(.+)", name)
    lead, rest = within.groups() if within else ("", name)
    for old, new in (block if within else outside).items():
        if rest == old or rest.startswith(f"{old}."):
            return f"{lead}{new}{rest.removeprefix(old)}"
    return name
