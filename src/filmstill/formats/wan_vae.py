"""Import Wan's VAE, from Wan2.1_VAE.pth or diffusers' `vae/`, and the fast decoder TAEHV.

Wan2.1_VAE.pth contains no config: the sizes are inferred from its tensors' shapes, and its names are mapped to
diffusers' by a table of every module that a network of these sizes may have.

Source: `wan/modules/vae.py` of Wan2.1 and diffusers' `AutoencoderKLWan`.
"""

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats.families import check_dtypes, refuse_quantized
from filmstill.formats.released_files import read_released_json
from filmstill.formats.weight_files import Weights, check_names, open_weights
from filmstill.models.taehv import empty_taehv
from filmstill.models.wan_vae import CONFIG, KIND, SPACE_STRIDE, STATISTICS, TIME_STRIDE, empty_vae
from filmstill.runtime.tensor_files import save_tensors

Z_DIM_2_2 = 48  # of Wan2.2's VAE, which only TI2V-5B uses; its A14B networks use Wan2.1's VAE
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
    """Map Wan's name of each module to diffusers'. `num_stages` is one more than the number of resamplings."""
    groups = [("", "", {"conv1": "quant_conv", "conv2": "post_quant_conv"})]
    for side in ("encoder", "decoder"):
        groups += [
            (f"{side}.", f"{side}.", {"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"}),
            (f"{side}.middle.0.", f"{side}.mid_block.resnets.0.", _RESIDUAL),
            (f"{side}.middle.1.", f"{side}.mid_block.attentions.0.", _ATTENTION),
            (f"{side}.middle.2.", f"{side}.mid_block.resnets.1.", _RESIDUAL),
        ]
    for stage in range(num_stages):
        # Both number the encoder's blocks consecutively. diffusers numbers the decoder's, one more per stage, by stage.
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
    return {
        wan_prefix + wan: diffusers_prefix + diffusers
        for wan_prefix, diffusers_prefix, parts in groups
        for wan, diffusers in parts.items()
    }


def rename(name: str, table: Mapping[str, str]) -> str:
    """Rename a tensor by a table of modules or its inverse. Raises KeyError for a module that is not in the table."""
    module, _, parameter = name.rpartition(".")
    return f"{table[module]}.{parameter}"


def sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """Arguments of `AutoencoderKLWan`, inferred from shapes in Wan's layout, among them `encoder.conv1` and `conv2`."""
    base_dim = width = shapes["encoder.conv1.weight"][0]
    dim_mult: list[int] = []
    temporal: list[bool] = []  # per downsampling: whether it halves time, too
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


def import_vae(source: Path, target: Path, z_dim: int, fast: Path | None = None) -> None:
    """Write the codec's file `target` from a VAE in Wan's or diffusers' names and, if `fast` is given, TAEHV's weights.

    Raises FilmstillError, and writes nothing, for damaged files, other networks, and a VAE of another `z_dim`.
    """
    vae, weights, names = check_vae(source, z_dim)
    tensors = {f"vae.{name}": weights[names[name]] for name in names}
    if fast is not None:
        tensors |= {f"fast.{name}": tensor for name, tensor in read_taehv(fast, z_dim).items()}
    config = {name: vae.config[name] for name in CONFIG}
    save_tensors(target, tensors, {"kind": KIND, "config": json.dumps(config, sort_keys=True)})


def check_vae(source: Path, z_dim: int) -> tuple[Any, Weights, dict[str, str]]:
    """(network without weights, weights, diffusers' name of every tensor to its name there) of a released VAE.

    Raises FilmstillError for anything that `import_vae` refuses. Headers are read, no weights.
    """
    weights = open_weights(source)
    refuse_quantized(source, weights)
    shapes = weights.shapes
    wan = {"encoder.conv1.weight", "conv2.weight"} <= shapes.keys()
    if not wan and "encoder.conv_in.weight" not in shapes:
        raise FilmstillError(
            f"{source}: not a VAE of Wan: it has neither encoder.conv1 and conv2, as Wan2.1_VAE.pth, nor "
            "encoder.conv_in, as diffusers' vae folder"
        )
    folder = source if source.is_dir() else source.parent
    vae = _vae_of(source, sizes(shapes) if wan else _config(folder / "config.json"), z_dim, len(shapes))
    names = {name: name for name in vae.state_dict()}  # diffusers' name to the file's
    if wan:
        table = modules(vae.config.num_res_blocks, len(vae.config.dim_mult))
        inverse = {diffusers: wan_name for wan_name, diffusers in table.items()}
        names = {name: rename(name, inverse) for name in names}
    check_names(source, shapes, {names[name]: tuple(tensor.shape) for name, tensor in vae.state_dict().items()})
    check_dtypes(source, {stored: weights.dtypes[stored] for stored in names.values()})
    return vae, weights, names


def _config(path: Path) -> dict[str, Any]:
    """The keys `CONFIG` of diffusers' config.json. Raises FilmstillError if one is missing."""
    found = read_released_json(path)
    if absent := [name for name in CONFIG if name not in found]:
        raise FilmstillError(f"{path}: not the config of an AutoencoderKLWan: has no {', '.join(absent)}")
    return {name: found[name] for name in CONFIG}


def _vae_of(source: Path, config: dict[str, Any], z_dim: int, tensors: int) -> Any:
    """The network of a config, without weights. Raises FilmstillError unless it is like Wan2.1's, with this `z_dim`.

    tensors: number of tensors that the files hold; a config of more blocks is not built, which could take hours.
    """
    if config["z_dim"] != z_dim:
        found = f"z_dim {config['z_dim']}{' (Wan2.2, of TI2V-5B)' if config['z_dim'] == Z_DIM_2_2 else ''}"
        raise FilmstillError(f"{source}: a VAE of {found}; the transformer's latents have {z_dim} channels")
    try:
        blocks = config["num_res_blocks"] * len(config["dim_mult"])
        if blocks > tensors:
            raise ValueError(f"{blocks} blocks for {tensors} tensors")
        vae = empty_vae(config)
        strides = 2 ** sum(vae.config.temperal_downsample), 2 ** (len(vae.config.dim_mult) - 1)
        statistics = [tuple(torch.tensor(vae.config[name]).shape) for name in STATISTICS]
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FilmstillError(f"{source}: its config does not describe an AutoencoderKLWan ({reason})") from None
    if strides != (TIME_STRIDE, SPACE_STRIDE):
        wanted = f"{TIME_STRIDE} and {SPACE_STRIDE}"
        raise FilmstillError(f"{source}: strides {strides[0]} in time and {strides[1]} in space; Wan2.1's are {wanted}")
    if statistics != [(z_dim,), (z_dim,)]:
        raise FilmstillError(
            f"{source}: lacks {z_dim} latents_mean and {z_dim} latents_std; diffusers' config.json contains them, "
            "for Wan's own file only the 16 of Wan2.1 are known"
        )
    return vae


def read_taehv(path: Path, channels: int) -> dict[str, Tensor]:
    """The decoder's tensors of TAEHV's released file, under their names there; its encoder is not read.

    Raises FilmstillError if the file is damaged or is not a TAEHV whose latents have `channels` channels.
    """
    weights = open_weights(path)
    shapes = {name: shape for name, shape in weights.shapes.items() if not name.startswith("encoder.")}
    network = empty_taehv(channels, shapes)
    check_names(path, shapes, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    check_dtypes(path, {name: weights.dtypes[name] for name in shapes})
    return {name: weights[name] for name in shapes}
