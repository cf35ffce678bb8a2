"""Recognise checkpoints that are sound but of another kind than a whole text-to-video network of Wan, and name them.

Otherwise their tensors would only be counted as missing and unknown. Without torch, since `check` recognises them too.

Source of the names: `wan/modules/` of Wan2.1 and Wan2.2, VideoX-Fun, peft, kohya's and ComfyUI's LoRAs, bitsandbytes.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.formats.released_files import read_released_json, refusal
from filmstill.runtime.file_kind import fault_of, one_file_of
from filmstill.runtime.safetensors_file import DTYPES

SUPPORTED = "allowed: a text-to-video network of Wan2.1 (1.3B, 14B) or Wan2.2 (T2V-A14B)"
_TAKE = "take one of these, for instance Wan-AI/Wan2.1-T2V-1.3B"
_MERGE = "merge it into its base model and pass that (diffusers: load_lora_weights, fuse_lora, save_pretrained)"
_FILES = "allowed: one file or shards with an index"
_UNQUANTIZED = "take the same model's release in bf16, fp16 or fp32"
_I2V = "an image-to-video network (I2V, FLF2V or InP)"
_CONTROL, _CAMERA = "a network with control videos (Fun-Control)", "a network with camera control (Fun-Control-Camera)"
_TI2V = "Wan2.2's TI2V-5B, whose latents are those of Wan2.2's VAE"
TRANSFORMER = "WanTransformer3DModel"  # diffusers' class of the network
PIPELINE = "model_index.json"  # of diffusers: the class of each of its folders
EXPERTS = ("transformer", "transformer_2")  # folders of a pipeline's networks, high noise first
CLASSES = ("WanModel", "CausalWanModel", TRANSFORMER)  # _class_name in config.json

# Patterns of names that only such a tensor has, and what they show.
_QUANTIZED = {
    r"\bscaled_fp8$|\.(scale_weight|weight_scale|scale_input|comfy_quant)$": "fp8",
    r"\.quant_state\.|\.(absmax|quant_map|nested_absmax)$": "4 bits (bitsandbytes)",
    r"\.(SCB|weight_format)$": "int8 (bitsandbytes)",
    r"\.(qweight|qzeros|wscales)$": "int4 or int8",
}
_ADAPTER = "|".join(
    (
        r"(^|[._])lora_(a|b|up|down|unet|te\d?)([._]|$)",
        r"\.lora\.(up|down)\.|\.diff(_b|_m)?$|\bdora_scale$",
        r"\.(hada|lokr)_w|\.base_layer\.",
    )
)
_NETWORKS = {
    r"\bvace_": "a VACE network",
    r"\b(face_adapter|face_encoder|motion_encoder|pose_patch_embedding)\.": "a Wan-Animate network",
    r"\b(casual_audio_encoder|audio_injector)\.": "a speech-to-video network (S2V)",
    r"\bcontrol_adapter\.": _CAMERA,
    r"\bref_conv\.": _CONTROL,
}
_IMAGE = r"\b(img_emb|image_embedder)\.|\.(k_img|add_k_proj)\."
# Channels in and out; a text-to-video network of Wan has 16 of both.
_CHANNELS = {(36, 16): _I2V, (32, 16): _CAMERA, (48, 16): _CONTROL, (52, 16): _CONTROL, (48, 48): _TI2V}
_TYPES = {  # model_type in Wan's config.json
    "i2v": _I2V,
    "flf2v": _I2V,
    "ti2v": _TI2V,
    "vace": "a VACE network",
    "s2v": "a speech-to-video network (S2V)",
    "animate": "a Wan-Animate network",
}


def refuse_other_tensors(source: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise FilmstillError for an adapter, quantized weights, or a network that takes more than text and noise.

    shapes: by the names in the files, of any spelling.
    """
    _refuse_names(source, shapes, _ADAPTER, "is a LoRA or another adapter, changes to a network", SUPPORTED, _MERGE)
    refuse_quantized(source, shapes)
    for pattern, what in _NETWORKS.items():
        _refuse_names(source, shapes, pattern, f"is {what}", SUPPORTED, _TAKE)
    taken = [shape[1] for name, shape in shapes.items() if name.endswith("patch_embedding.weight") and len(shape) == 5]
    ends = ("head.head.weight", "proj_out.weight")
    made = [shape[0] // 4 for name, shape in shapes.items() if name.endswith(ends) and len(shape) == 2]
    if taken and made:
        _refuse_channels(source, taken[0], made[0])
    _refuse_names(source, shapes, _IMAGE, f"is {_I2V}", SUPPORTED, _TAKE)


def refuse_quantized(source: Path, names: Collection[str]) -> None:
    """Raise FilmstillError if names in the files show that the weights are quantized."""
    for pattern, bits in _QUANTIZED.items():
        allowed = f"allowed: weights in {', '.join(DTYPES)}"
        _refuse_names(source, names, pattern, f"is quantized to {bits}", allowed, _UNQUANTIZED)


def check_dtypes(source: Path, dtypes: Mapping[str, str]) -> None:
    """Raise FilmstillError for the first tensor whose dtype filmstill does not store."""
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            quantized = re.search(r"F4|F8|I8|U8|float8|int8", dtype)
            remedy = f"; the weights are quantized, {_UNQUANTIZED}" if quantized else ""
            raise FilmstillError(f"{source}: {name}: is {dtype}, allowed: {', '.join(DTYPES)}{remedy}")


def refuse_other_config(path: Path, values: Mapping[str, Any]) -> None:
    """Raise FilmstillError if a network's config.json, of Wan or diffusers, describes a network of another kind."""
    kind = values.get("_class_name")
    if kind not in CLASSES:
        network = SUPPORTED.removeprefix("allowed: ")
        raise FilmstillError(f"{path}: _class_name: is {kind!r}, allowed: {', '.join(CLASSES)}; take {network}")
    if isinstance(quantized := values.get("quantization_config"), Mapping):
        raise _refused(path, f"describes quantized weights ({quantized.get('quant_method')})", _UNQUANTIZED)
    kind = values.get("model_type", "t2v")
    if kind != "t2v":
        raise _refused(path, f"describes {_TYPES.get(str(kind), 'another network')}: its model_type is {kind!r}", _TAKE)
    if image := [key for key in ("image_dim", "added_kv_proj_dim") if values.get(key) is not None]:
        raise _refused(path, f"describes {_I2V}: its {image[0]} is {values[image[0]]}", _TAKE)
    taken = values.get("in_dim", values.get("in_channels"))
    made = values.get("out_dim", values.get("out_channels")) or taken
    if isinstance(taken, int) and isinstance(made, int):
        _refuse_channels(path, taken, made, "describes")


def refuse_other_folder(folder: Path, without_weights: bool = False) -> None:
    """Raise FilmstillError for a folder that holds something other than a network's weights in files of their own.

    An adapter, and a pipeline of another network, by what the folder declares itself to be.
    without_weights: no set of weights was found in it; then also checkpoints in forms that are not read.
    """
    if (adapter := folder / "adapter_config.json").is_file():
        kind = read_released_json(adapter).get("peft_type")
        raise _refused(folder, f"is a LoRA or another adapter, a {kind} of peft", _MERGE)
    if (index := folder / PIPELINE).is_file():
        network = pipeline_networks(folder).get(EXPERTS[0], "no transformer")
        if network not in (TRANSFORMER, ""):
            what = f"{read_released_json(index).get('_class_name')}, whose network is {network}"
            raise _refused(folder, f"is a pipeline of another model, {what}", _TAKE)
    if not without_weights:
        return
    if shards := [*folder.glob("*.distcp"), *folder.glob("*/*.distcp")]:
        kept = min((shard.parent for shard in shards), key=lambda path: ("optim" in path.name, path))
        raise FilmstillError(f"{kept}: is a checkpoint of torch.distributed.checkpoint, {_FILES}; {one_file_of(kept)}")
    if (folder / "zero_to_fp32.py").is_file() or any(folder.glob("*zero_pp_rank_*")):
        make = "make one file of it, `python zero_to_fp32.py . model.pt` in it, and pass that"
        raise FilmstillError(f"{folder}: is a checkpoint of DeepSpeed's ZeRO, {_FILES}; {make}")
    if found := next(iter(sorted(folder.glob("*.gguf"))), None):
        fault = fault_of(found)
        raise refusal(found, fault) if fault else FilmstillError(f"{found}: is not read; take a safetensors release")


def pipeline_networks(folder: Path) -> dict[str, str]:
    """Networks of a pipeline, EXPERTS that its model_index.json lists or that are there, with their classes.

    A network that is there and not listed has the class "". Empty for a folder that is no pipeline.
    """
    if not (index := folder / PIPELINE).is_file():
        return {}
    values = read_released_json(index)
    found = {}
    for name in EXPERTS:
        entry = values.get(name)
        listed = str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] else ""
        if listed or (folder / name).is_dir():
            found[name] = listed
    return found


def experts_boundary(folder: Path) -> float | None:
    """The sigma at which a pipeline's experts meet, `boundary_ratio` of its model_index.json; None: it names none."""
    index = folder / PIPELINE
    ratio = read_released_json(index).get("boundary_ratio") if index.is_file() else None
    return float(ratio) if isinstance(ratio, int | float) else None


def _refuse_names(
    source: Path, names: Collection[str], pattern: str, predicate: str, allowed: str, remedy: str
) -> None:
    if found := [name for name in names if re.search(pattern, name, re.IGNORECASE)]:
        counted = f"{len(found)} of {len(names)} tensors, such as {min(found)}"
        raise FilmstillError(f"{source}: {predicate} ({counted}), {allowed}; {remedy}")


def _refuse_channels(source: Path, taken: int, made: int, verb: str = "is") -> None:
    if taken != made or (taken, made) in _CHANNELS:
        what = _CHANNELS.get((taken, made), "a network with further inputs")
        raise _refused(source, f"{verb} {what}: {taken} channels in, {made} out", _TAKE)


def _refused(source: Path, predicate: str, remedy: str) -> FilmstillError:
    return FilmstillError(f"{source}: {predicate}, {SUPPORTED}; {remedy}")
