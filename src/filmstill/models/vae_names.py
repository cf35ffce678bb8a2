"""The layout of Wan2.1_VAE.pth: its names against diffusers', and the network's sizes, which are nowhere else in it.

Notable: one table of modules, made from the sizes and read both ways; it lists every module that such a network may
hold, the network says which it has.

Source: `wan/modules/vae.py` of Wan2.1 and diffusers' `AutoencoderKLWan`.
"""

from collections.abc import Mapping
from itertools import count

_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {name: name for name in ("norm", "to_qkv", "proj")}
_RESAMPLE = {name: name for name in ("resample.1", "time_conv")}


def modules(num_res_blocks: int, num_stages: int) -> dict[str, str]:
    """Wan's name of each module to diffusers'; the stages are one more than the resamplings."""
    groups = [("", "", {"conv1": "quant_conv", "conv2": "post_quant_conv"})]
    for side in ("encoder", "decoder"):
        groups += [
            (f"{side}.", f"{side}.", {"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"}),
            (f"{side}.middle.0.", f"{side}.mid_block.resnets.0.", _RESIDUAL),
            (f"{side}.middle.1.", f"{side}.mid_block.attentions.0.", _ATTENTION),
            (f"{side}.middle.2.", f"{side}.mid_block.resnets.1.", _RESIDUAL),
        ]
    for stage in range(num_stages):
        # Both number the encoder's blocks through; diffusers groups the decoder's, which has one more, by stage.
        start = stage * (num_res_blocks + 1)
        for n in range(start, start + num_res_blocks):
            groups.append((f"encoder.downsamples.{n}.", f"encoder.down_blocks.{n}.", _RESIDUAL))
        n = start + num_res_blocks
        groups.append((f"encoder.downsamples.{n}.", f"encoder.down_blocks.{n}.", _RESAMPLE))
        start = stage * (num_res_blocks + 2)
        for n in range(num_res_blocks + 1):
            groups.append((f"decoder.upsamples.{start + n}.", f"decoder.up_blocks.{stage}.resnets.{n}.", _RESIDUAL))
        n = start + num_res_blocks + 1
        groups.append((f"decoder.upsamples.{n}.", f"decoder.up_blocks.{stage}.upsamplers.0.", _RESAMPLE))
    return {ours + part: theirs + name for ours, theirs, parts in groups for part, name in parts.items()}


def rename(name: str, table: Mapping[str, str]) -> str:
    """A tensor's name by a table of modules (or by its inverse). KeyError for a module that is not in it."""
    module, _, parameter = name.rpartition(".")
    return f"{table[module]}.{parameter}"


def sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """Arguments of `AutoencoderKLWan` read off the shapes in Wan's layout, which has `encoder.conv1` and `conv2`."""
    base_dim = width = shapes["encoder.conv1.weight"][0]
    dim_mult: list[int] = []
    temporal: list[bool] = []  # of each downsampling
    for n in count():
        block = f"encoder.downsamples.{n}"
        if f"{block}.residual.2.weight" in shapes:
            width = shapes[f"{block}.residual.2.weight"][0]
        elif f"{block}.resample.1.weight" in shapes:
            dim_mult.append(width // base_dim)
            temporal.append(f"{block}.time_conv.weight" in shapes)
        else:
            break
    dim_mult.append(width // base_dim)
    return {
        "base_dim": base_dim,
        "z_dim": shapes["conv2.weight"][0],
        "dim_mult": dim_mult,
        "num_res_blocks": (n - len(temporal)) // len(dim_mult),
        "temperal_downsample": temporal,
    }
