"""Sound checkpoints of another kind are named with what is supported, by `convert`, the import and `check`."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import left, line_of, weights
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from filmstill.formats.release import Release, find_networks
from filmstill.formats.tensor_names import to_diffusers
from filmstill.formats.umt5 import import_umt5
from filmstill.formats.wan_vae import import_vae
from mini_wan import CONFIG, write_mini, write_network
from tiny_umt5 import random_weights
from tiny_vae import write_vae

SUPPORTED = "allowed: a text-to-video network of Wan2.1 (1.3B, 14B) or Wan2.2 (T2V-A14B); "
TAKE = "take one of these, for instance Wan-AI/Wan2.1-T2V-1.3B"
MERGE = "merge it into its base model and pass that"
UNQUANTIZED = "take the same model's release in bf16, fp16 or fp32"
DIM = CONFIG.dim
Q = "blocks.0.self_attn.q.weight"


def channels(taken: int, made: int = 16) -> dict[str, Tensor]:
    """What a network of other channels in and out has in place of a text-to-video network's."""
    return {
        "patch_embedding.weight": torch.zeros(DIM, taken, 1, 2, 2),
        "head.head.weight": torch.zeros(4 * made, DIM),
        "head.head.bias": torch.zeros(4 * made),
    }


I2V = {"img_emb.proj.1.weight": torch.zeros(DIM, DIM), "blocks.0.cross_attn.k_img.weight": torch.zeros(DIM, DIM)}
IMAGE = "an image-to-video network (I2V, FLF2V or InP)"
CONTROL, CAMERA = "a network with control videos (Fun-Control)", "a network with camera control (Fun-Control-Camera)"
# The tensors that a network of another family has besides or in place of a text-to-video network's; its name.
FAMILIES: dict[str, tuple[dict[str, Tensor], str]] = {
    "Wan2.1 I2V": ({**channels(36), **I2V}, f"{IMAGE}: 36 channels in, 16 out"),
    "Wan2.2 I2V-A14B": (channels(36), f"{IMAGE}: 36 channels in, 16 out"),
    "image alone": (I2V, f"{IMAGE} (2 of 71 tensors, such as blocks.0.cross_attn.k_img.weight)"),
    "TI2V-5B": (channels(48, 48), "Wan2.2's TI2V-5B, whose latents are those of Wan2.2's VAE: 48 channels in, 48 out"),
    "VACE": (
        {"vace_patch_embedding.weight": torch.zeros(1), "vace_blocks.0.norm3.bias": torch.zeros(1)},
        "a VACE network",
    ),
    "Fun-Control": ({**channels(48), **I2V}, f"{CONTROL}: 48 channels in, 16 out"),
    "Fun-Control 1.1": ({**channels(48), "ref_conv.weight": torch.zeros(1)}, f"{CONTROL} (1 of 70 tensors"),
    "Wan2.2 Fun-Control": (channels(52), f"{CONTROL}: 52 channels in, 16 out"),
    "camera": (channels(32), f"{CAMERA}: 32 channels in, 16 out"),
    "camera adapter": ({**channels(36), "control_adapter.conv.weight": torch.zeros(1)}, CAMERA),
    "S2V": ({"audio_injector.injector.0.q.weight": torch.zeros(1)}, "a speech-to-video network (S2V)"),
    "Animate": ({**channels(36), **I2V, "face_adapter.fuser_blocks.0.q.bias": torch.zeros(1)}, "a Wan-Animate network"),
    "unknown": (channels(20), "a network with further inputs: 20 channels in, 16 out"),
}


@pytest.mark.parametrize("layout", ["wan", "diffusers", "ComfyUI", "self-forcing"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_another_family_is_named(tmp_path: Path, family: str, layout: str):
    tensors, what = FAMILIES[family]
    tensors = {**weights(CONFIG), **tensors}
    path = tmp_path / ("a.pt" if layout == "self-forcing" else "a.safetensors")
    if layout == "self-forcing":
        torch.save({"generator": {f"model.{name}": tensor for name, tensor in tensors.items()}}, path)
    else:
        prefix = "model.diffusion_model." if layout == "ComfyUI" else ""
        rename = to_diffusers if layout == "diffusers" else str
        save_file({prefix + rename(name): tensor for name, tensor in tensors.items()}, path)
    line = line_of(lambda: convert(path, tmp_path / "out", "diffusers", heads=4))
    assert line.startswith(f"{path}: is {what.partition(' (2 of')[0]}"), line
    assert line.endswith(f", {SUPPORTED}{TAKE}")
    assert left(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "i2v", "in_dim": 36}, f"describes {IMAGE}: its model_type is 'i2v', {SUPPORTED}{TAKE}"),
        ({"model_type": "flf2v"}, f"describes {IMAGE}: its model_type is 'flf2v'"),
        ({"model_type": "ti2v", "in_dim": 48}, "describes Wan2.2's TI2V-5B, whose latents are those of Wan2.2's VAE"),
        ({"model_type": "s2v"}, "describes a speech-to-video network (S2V): its model_type is 's2v'"),
        ({"model_type": ["t2v"]}, "describes another network: its model_type is ['t2v']"),
        ({"in_dim": 36}, f"describes {IMAGE}: 36 channels in, 16 out"),
        (
            {"in_dim": 48, "out_dim": 48},
            "describes Wan2.2's TI2V-5B, whose latents are those of Wan2.2's VAE: 48 channels",
        ),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "describes quantized weights (bitsandbytes)"),
        (
            {"_class_name": "VaceWanModel", "model_type": "vace"},
            "_class_name: is 'VaceWanModel', allowed: WanModel, CausalWanModel, WanTransformer3DModel; take a text-to",
        ),
    ],
)
def test_a_config_of_another_family_is_named_by_check_too(tmp_path: Path, changes: dict, message: str):
    write_network(tmp_path / "wan", "wan", seed=0)
    config = tmp_path / "wan/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    for read in (find_networks, read_network):
        line = line_of(lambda read=read: read(tmp_path / "wan"))
        assert line.startswith(f"{config}: {message}"), line


@pytest.mark.parametrize("family", FAMILIES)
def test_check_names_a_network_of_another_family_by_its_header(tmp_path: Path, family: str):
    """Without a config.json that says it, in a release sharded over two files."""
    write_network(tmp_path / "wan", "wan", seed=0)
    single = tmp_path / "wan/diffusion_pytorch_model.safetensors"
    tensors = {**load_file(single), **FAMILIES[family][0]}
    single.unlink()
    names = sorted(tensors)
    placed = {}
    for number, (start, end) in enumerate(pairwise((0, len(names) // 2, len(names))), 1):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names[start:end]}, tmp_path / "wan" / file)
        placed |= dict.fromkeys(names[start:end], file)
    (tmp_path / "wan/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    line = line_of(lambda: find_networks(tmp_path / "wan"))
    assert line.startswith(f"{tmp_path / 'wan'}: is {FAMILIES[family][1].partition(' (')[0]}"), line


def adapter(down: str, up: str, prefix: str = "diffusion_model.", **further: Tensor) -> dict[str, Tensor]:
    module = f"{prefix}blocks.0.self_attn.q"
    return {f"{module}.{down}": torch.zeros(4, DIM), f"{module}.{up}": torch.zeros(DIM, 4), **further}


ADAPTERS = {
    "ComfyUI": adapter(
        "lora_down.weight", "lora_up.weight", **{"diffusion_model.blocks.0.self_attn.q.alpha": torch.ones(1)}
    ),
    "differences": {
        "diffusion_model.blocks.0.norm3.diff": torch.zeros(DIM),
        "diffusion_model.head.head.diff_b": torch.zeros(1),
    },
    "kohya": {"lora_unet_blocks_0_self_attn_q.lora_down.weight": torch.zeros(4, DIM)},
    "peft": adapter("lora_A.weight", "lora_B.weight", "base_model.model."),
    "diffusers": adapter("lora_A.weight", "lora_B.weight", "transformer."),
    "named adapter": adapter("lora_A.default.weight", "lora_B.default.weight", ""),
    "LoHa": adapter("hada_w1_a", "hada_w1_b"),
    "not merged": {**weights(CONFIG), **adapter("lora_A.weight", "lora_B.weight", "")},
}


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_lora_is_named(tmp_path: Path, kind: str, suffix: str):
    path = tmp_path / f"a{suffix}"
    save_file(ADAPTERS[kind], path) if suffix == ".safetensors" else torch.save(ADAPTERS[kind], path)
    line = line_of(lambda: convert(path, tmp_path / "out", "diffusers", heads=4))
    assert line.startswith(f"{path}: is a LoRA or another adapter, changes to a network (")
    assert SUPPORTED in line and MERGE in line


def test_a_folder_of_peft_is_named(tmp_path: Path):
    save_file(ADAPTERS["peft"], tmp_path / "adapter_model.safetensors")
    assert "is a LoRA or another adapter" in line_of(lambda: read_network(tmp_path))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA"}))
    for read in (read_network, find_networks):
        line = line_of(lambda read=read: read(tmp_path))
        assert line.startswith(f"{tmp_path}: is a LoRA or another adapter, a VERA of peft, {SUPPORTED}{MERGE}")


def quantized(bits: str) -> dict[str, Tensor]:
    fp8, module = torch.zeros(DIM, DIM).to(torch.float8_e4m3fn), Q.removesuffix(".weight")
    return {
        "fp8": {Q: fp8},
        "fp8 scaled": {Q: fp8, f"{module}.scale_weight": torch.ones(1), "scaled_fp8": torch.zeros(0).to(fp8.dtype)},
        "nf4": {Q: torch.zeros(DIM * DIM // 2, 1).byte(), f"{Q}.absmax": torch.zeros(9).byte()},
        "int8": {Q: torch.zeros(DIM, DIM).char(), f"{module}.SCB": torch.zeros(DIM)},
        "int8 alone": {Q: torch.zeros(DIM, DIM).char()},
    }[bits]


FLOATS = "allowed: F64, F32, BF16, F16; the weights are quantized, "
QUANTIZED = {
    "fp8": f": {Q}: is F8_E4M3, {FLOATS}{UNQUANTIZED}",
    "fp8 scaled": f": is quantized to fp8 (2 of 71 tensors, such as {Q.removesuffix('.weight')}.scale_weight), allow",
    "nf4": f": is quantized to 4 bits (bitsandbytes) (1 of 70 tensors, such as {Q}.absmax), allowed: weights in F64",
    "int8": ": is quantized to int8 (bitsandbytes) (1 of 70 tensors, such as blocks.0.self_attn.q.SCB), allowed:",
    "int8 alone": f": {Q}: is I8, {FLOATS}{UNQUANTIZED}",
}


@pytest.mark.parametrize("bits", QUANTIZED)
def test_quantized_weights_are_named(tmp_path: Path, bits: str):
    write_network(tmp_path / "wan", "wan", seed=0)
    path = tmp_path / "wan/diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), **quantized(bits)}, path)
    for source, read in ((path, read_network), (tmp_path / "wan", read_network), (tmp_path / "wan", find_networks)):
        line = line_of(lambda source=source, read=read: read(source))
        assert line.startswith(f"{source}{QUANTIZED[bits]}"), line
        assert line.endswith(UNQUANTIZED)


def test_quantized_encoders_and_vaes_are_named(tmp_path: Path):
    write_mini(tmp_path / "release", "diffusers")
    encoder, vae = tmp_path / "release/text_encoder", tmp_path / "release/vae"
    name = "encoder.block.0.layer.0.SelfAttention.q"
    scaled = {**random_weights(3), f"{name}.scale_weight": torch.ones(1)}
    save_file(scaled, encoder / "model.safetensors")
    message = f"{encoder}: is quantized to fp8 (1 of 23 tensors, such as {name}.scale_weight), allowed: weights in F64"
    read = lambda: import_umt5(encoder, tmp_path / "release/tokenizer", tmp_path / "t")  # noqa: E731
    assert line_of(read).startswith(message)
    assert line_of(lambda: Release.find(tmp_path / "release")).startswith(message)
    save_file(
        {**random_weights(3), f"{name}.weight": random_weights(3)[f"{name}.weight"].to(torch.float8_e5m2)},
        encoder / "model.safetensors",
    )
    message = f"{encoder}: {name}.weight: is F8_E5M2, {FLOATS}{UNQUANTIZED}"
    assert line_of(read) == line_of(lambda: Release.find(tmp_path / "release")) == message
    path = vae / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"quant_conv.weight": tensors["quant_conv.weight"].to(torch.float8_e4m3fn)}, path)
    line = line_of(lambda: import_vae(vae, tmp_path / "v.safetensors", 16))
    assert line == f"{vae}: quant_conv.weight: is F8_E4M3, {FLOATS}{UNQUANTIZED}"


def test_the_vae_of_wan_2_2_is_named(tmp_path: Path):
    write_vae(tmp_path / "Wan2.2_VAE.pth", "wan", 1, z_dim=48, latents_mean=[0.0] * 48, latents_std=[1.0] * 48)
    line = line_of(lambda: import_vae(tmp_path / "Wan2.2_VAE.pth", tmp_path / "v.safetensors", 16))
    assert line.endswith("VAE.pth: a VAE of z_dim 48 (Wan2.2, of TI2V-5B); the transformer's latents have 16 channels")


def test_a_release_of_ti2v_is_named_before_its_vae_is_missed(tmp_path: Path):
    write_mini(tmp_path / "wan", "wan")
    (tmp_path / "wan/Wan2.1_VAE.pth").rename(tmp_path / "wan/Wan2.2_VAE.pth")
    config = tmp_path / "wan/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "ti2v", "in_dim": 48, "out_dim": 48}))
    assert "config.json: describes Wan2.2's TI2V-5B" in line_of(lambda: Release.find(tmp_path / "wan"))


def test_experts_of_text_to_video_are_taken_and_those_of_image_to_video_named(tmp_path: Path):
    write_mini(tmp_path / "a14b", "experts")
    networks = find_networks(tmp_path / "a14b")
    assert [path.name for path in networks] == ["high_noise_model", "low_noise_model"]
    assert [read_network(path).config for path in networks] == [CONFIG, CONFIG]
    config = networks[1] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "i2v", "in_dim": 36}))
    assert f"{config}: describes {IMAGE}" in line_of(lambda: find_networks(tmp_path / "a14b"))


@pytest.mark.parametrize(
    ("index", "network"),
    [
        ({"_class_name": "HunyuanVideoPipeline", "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"]}, None),
        ({"_class_name": "WanVACEPipeline", "transformer": ["diffusers", "WanVACETransformer3DModel"]}, None),
        ({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, "no transformer"),
    ],
)
def test_a_pipeline_of_another_model_is_named(tmp_path: Path, index: dict, network: str | None):
    write_mini(tmp_path / "p", "diffusers")
    (tmp_path / "p/model_index.json").write_text(json.dumps(index))
    if network:
        shutil.rmtree(tmp_path / "p/transformer")
    what = f"{index['_class_name']}, whose network is {network or index['transformer'][1]}, {SUPPORTED}{TAKE}"
    for read in (read_network, Release.find):
        line = line_of(lambda read=read: read(tmp_path / "p"))
        assert line == f"{tmp_path / 'p'}: is a pipeline of another model, {what}"


def test_a_pipeline_of_another_class_with_this_network_is_read(tmp_path: Path):
    write_mini(tmp_path / "p", "diffusers")
    index = {"_class_name": "WanDMDPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    (tmp_path / "p/model_index.json").write_text(json.dumps(index))
    assert read_network(tmp_path / "p").config == CONFIG
    assert len(Release.find(tmp_path / "p").networks) == 1


def test_a_folder_of_gguf_is_named(tmp_path: Path):
    (tmp_path / "wan-Q4_K.gguf").write_bytes(b"GGUF\x03\0\0\0")
    assert "wan-Q4_K.gguf: is GGUF, quantized weights of" in line_of(lambda: read_network(tmp_path))


def test_channels_of_another_number_on_both_sides_are_read(tmp_path: Path):
    config = replace(CONFIG, in_channels=8)
    torch.save(weights(config), tmp_path / "a.pt")
    assert read_network(tmp_path / "a.pt", heads=4).config == config
