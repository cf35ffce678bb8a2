"""Convert transformer checkpoints from any layout to any other (`formats.layouts` describes the layouts).

Everything is checked before a byte is written. Tensors are copied one at a time, bit for bit. The target, a file or a
folder, is complete or absent, and nothing is overwritten.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.utils import CallbackIOWrapper

from filmstill.errors import FilmstillError
from filmstill.formats.layouts import DIFFUSERS_KEYS, WAN_KEYS, Network, Renamed, read_network
from filmstill.formats.tensor_names import to_diffusers
from filmstill.formats.weights_folder import STEM
from filmstill.models.dit import EPS
from filmstill.models.weights import header_of
from filmstill.runtime.file_kind import PICKLES
from filmstill.runtime.files import replacing, require_writable, write_json
from filmstill.runtime.progress import progress
from filmstill.runtime.tensor_stream import Written, replacing_folder, stream_tensors, write_tensors

# Suffixes that a layout's file may have; a layout without any is a folder.
SUFFIXES = {"wan": (), "diffusers": (), "self-forcing": (".pt", ".pth"), "filmstill": (".safetensors",)}
SHARD_BYTES = 10 * 10**9
WAN_TEXT_LEN = 512  # of the released models; written to config.json if the source does not record its own


def convert(
    source: Path,
    target: Path,
    to: str,
    part: str | None = None,
    heads: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    facts: Callable[[Network], dict[str, object]] | None = None,
) -> Network:
    """Write the network of `source` to `target` in the layout `to` (a key of SUFFIXES); return the network.

    part, heads: as in `read_network`. shard_bytes: largest size of one weights file in a folder.
    facts: what a filmstill file's header records of the network besides its sizes; None: the source's facts.
    Raises FilmstillError, before anything is read, if the target cannot be written or exists and is not an empty
    folder, and if the source cannot be read.
    """
    _check_target(source, target, to)
    network = read_network(source, part, heads)
    recorded = network.facts if facts is None else facts(network)
    total = sum(tensor.nbytes for tensor in network.weights.values())
    with progress("convert", total, unit="B") as bar:
        bar.unit_scale = True

        def written(count: int) -> None:
            bar.update(min(count, total - bar.n))  # a pickle is larger than its tensors

        if to == "filmstill":
            stream_tensors(target, network.weights, header_of(network.config, recorded), written)
        elif to == "self-forcing":
            _write_pickle(target, network, written)
        else:
            _write_folder(target, network, to, shard_bytes, written)
    return network


def _check_target(source: Path, target: Path, to: str) -> None:
    """Raise FilmstillError if the layout does not allow the target's suffix, or if it exists or cannot be written."""
    allowed = SUFFIXES[to]
    if allowed and target.suffix not in allowed:
        raise FilmstillError(f"{target}: {to} is one file, whose name ends in {' or '.join(allowed)}")
    if not allowed and target.suffix in (".safetensors", *PICKLES):
        raise FilmstillError(f"{target}: {to} is a folder, whose name does not end in {target.suffix}")
    require_writable(target, folder=not allowed)
    if target.exists() and (allowed or any(target.iterdir())):
        raise FilmstillError(f"{target}: exists, and nothing is overwritten; remove it or name another")
    if source.resolve() in target.resolve().parents:
        raise FilmstillError(f"{target}: is inside {source}, which is read; name a target outside of it")


def _write_pickle(target: Path, network: Network, written: Written) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in network.weights.items()}  # mapped, not read
    with replacing(target) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"generator": tensors}, CallbackIOWrapper(written, file, "write"))
        except RuntimeError as error:
            raise error.__context__ or error from None  # torch hides the cause (full disk, signal) behind its own error


def _write_folder(target: Path, network: Network, to: str, shard_bytes: int, written: Written) -> None:
    renamed = to_diffusers if to == "diffusers" else str
    weights = Renamed(network.weights, {renamed(name): name for name in network.weights})
    sizes = {name: weights[name].nbytes for name in sorted(weights)}
    shards = _split_by_size(sizes, shard_bytes)
    files = [f"{STEM}-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [f"{STEM}.safetensors"]
    with replacing_folder(target) as folder:
        for file, names in zip(files, shards, strict=True):
            write_tensors(folder / file, Renamed(weights, {name: name for name in names}), {"format": "pt"}, written)
        if len(shards) > 1:
            weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
            write_json(folder / f"{STEM}.safetensors.index.json", index)
        write_json(folder / "config.json", _config_json(network, to))


def _split_by_size(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Split names, in their order, into groups of at most `limit` bytes; a larger tensor is a group by itself."""
    groups: list[list[str]] = []
    free = 0
    for name, size in sizes.items():
        if size > free or not groups:
            groups.append([])
            free = limit
        groups[-1].append(name)
        free -= size
    return groups


def _config_json(network: Network, to: str) -> dict[str, object]:
    """Content of config.json, with the keys and constants of the released files."""
    config = network.config
    sizes = {**asdict(config), "head_dim": config.dim // config.num_heads}
    if to == "wan":
        return {key: sizes[size] for key, size in WAN_KEYS.items()} | {
            "_class_name": "WanModel",
            "model_type": "t2v",
            "out_dim": config.in_channels,
            "text_len": network.facts.get("text_len", WAN_TEXT_LEN),
            "eps": EPS,
        }
    return {key: sizes[size] for key, size in DIFFUSERS_KEYS.items()} | {
        "_class_name": "WanTransformer3DModel",
        "out_channels": config.in_channels,
        "patch_size": [1, 2, 2],
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": EPS,
        "rope_max_seq_len": 1024,
        "added_kv_proj_dim": None,
        "image_dim": None,
        "pos_embed_seq_len": None,
    }
