"""Checkpoints are converted from any layout to any other bit for bit."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from checkpoints import NAMES, SHARD, left, same, weights, where
from filmstill.errors import FilmstillError
from filmstill.formats.convert import SUFFIXES, convert
from filmstill.formats.layouts import read_network
from filmstill.formats.tensor_names import from_diffusers, strip_wrappers, to_diffusers, to_wan
from filmstill.models.weights import load_model, save_model
from goldens import TINY, assert_close, swap


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_model(path, weights(mixed=True), TINY, {})
    return path


def test_names_are_those_of_the_public_converter_and_come_back():
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    theirs = list(convert_wan_transformer_to_diffusers({name: torch.zeros(1) for name in NAMES}))
    assert [to_diffusers(name) for name in NAMES] == theirs
    assert [from_diffusers(name) for name in theirs] == NAMES
    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=4, attention_head_dim=12, ffn_dim=96, num_layers=2, freq_dim=32, text_dim=16
        )
    assert set(theirs) == set(model.state_dict())


@pytest.mark.parametrize(
    "name", ["", "blocks", "blocks.0.cross_attn.k_img.weight", "img_emb.proj.0.bias", "blocks.x.q"]
)
def test_other_names_stay_as_they_are(name):
    assert to_diffusers(name) == from_diffusers(name) == strip_wrappers(name) == name


@pytest.mark.parametrize(
    "wrapper",
    ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "module", "model", "diffusion_model"],
)
def test_wrappers_come_off_wherever_they_are(wrapper):
    for name in NAMES:
        parts = name.split(".")
        for at in range(len(parts)):
            wrapped = ".".join([*parts[:at], wrapper, *parts[at:]])
            assert to_wan(f"model.{wrapped}") == strip_wrappers(wrapped) == name


@pytest.mark.parametrize(("first", "second"), list(product(SUFFIXES, SUFFIXES)))
def test_every_pair_of_layouts_round_trips_bit_for_bit(student, tmp_path, first, second):
    """Converting back gives exactly the bytes that `save_model` wrote: names, dtypes, order and digest."""
    one, two, back = where(tmp_path / "1", first), where(tmp_path / "2", second), tmp_path / "back.safetensors"
    assert convert(student, one, first).format == "filmstill"
    read = convert(one, two, second, heads=4, shard_bytes=SHARD)
    assert read.format == first
    assert same(dict(read.weights), weights(mixed=True))
    assert convert(two, back, "filmstill", heads=4).config == TINY
    assert back.read_bytes() == student.read_bytes()


def test_facts_stay_in_a_filmstill_file_and_give_wan_its_text_length(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_model(source, weights(), TINY, {"text_len": 16, "steps": 4})
    assert convert(source, target, "filmstill").facts == {"text_len": 16, "steps": 4}
    model, facts = load_model(target, TINY)
    assert facts == {"text_len": 16, "steps": 4}
    assert same(model.state_dict(), weights())
    assert target.read_bytes() == source.read_bytes()
    convert(source, tmp_path / "wan", "wan")
    assert json.loads((tmp_path / "wan" / "config.json").read_text())["text_len"] == 16


@pytest.mark.parametrize("shard_bytes", [10**9, SHARD])
@torch.no_grad()
def test_diffusers_loads_the_export_and_computes_the_same(tmp_path, shard_bytes):
    from diffusers import WanTransformer3DModel

    save_model(tmp_path / "a.safetensors", weights(), TINY, {})
    convert(tmp_path / "a.safetensors", tmp_path / "export", "diffusers", shard_bytes=shard_bytes)
    theirs, info = WanTransformer3DModel.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(info.values())
    ours, _ = load_model(tmp_path / "a.safetensors")
    random = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 3, 4, 4, 6, generator=random), torch.randn(2, 5, 16, generator=random)
    t = torch.tensor([875.0, 20.0])
    assert_close(swap(theirs(swap(x), t, text).sample), ours(x, t, ours.read_text(text)), 2e-5)


def test_a_folder_is_cut_into_shards_that_keep_to_their_size_and_an_index(student, tmp_path):
    convert(student, tmp_path / "wan", "wan", shard_bytes=SHARD)
    index = json.loads((tmp_path / "wan" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"diffusion_pytorch_model-00001-of-{len(files):05}.safetensors"
    held = {file: load_file(tmp_path / "wan" / file) for file in files}
    assert {name: file for file in files for name in held[file]} == index["weight_map"]
    sizes = [sum(tensor.nbytes for tensor in shard.values()) for shard in held.values()]
    assert max(sizes) <= SHARD
    assert sum(sizes) == index["metadata"]["total_size"] == sum(t.nbytes for t in weights(mixed=True).values())
    (tmp_path / "wan" / files[1]).unlink()
    with pytest.raises(FilmstillError, match=f"{files[1]}: missing"):
        read_network(tmp_path / "wan")


def test_a_tensor_larger_than_a_shard_stands_alone(student, tmp_path):
    convert(student, tmp_path / "wan", "wan", shard_bytes=1)
    assert len(left(tmp_path / "wan")) == len(NAMES) + 2
    assert same(dict(read_network(tmp_path / "wan").weights), weights(mixed=True))


def test_folders_as_they_are_released(student, tmp_path):
    """Wan's own folder contains other networks' files, too; a diffusers pipeline contains the transformer."""
    convert(student, tmp_path / "wan", "wan")
    for other in ("Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"):
        torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "wan" / other)
    assert same(dict(read_network(tmp_path / "wan").weights), weights(mixed=True))
    alone = read_network(tmp_path / "wan" / "diffusion_pytorch_model.safetensors")
    assert (alone.config, alone.format) == (TINY, "wan")  # the heads of the config.json beside it
    convert(student, tmp_path / "pipeline" / "transformer", "diffusers")
    network = read_network(tmp_path / "pipeline")
    assert (network.config, network.format) == (TINY, "diffusers")
    torch.save(weights(mixed=True), tmp_path / "wan.pth")
    assert same(dict(read_network(tmp_path / "wan.pth", heads=4).weights), weights(mixed=True))


def test_the_part_of_a_self_forcing_file_is_chosen(tmp_path):
    """EMA is preferred; names with FSDP's wrappers and nn.Parameter values are read; other entries are ignored."""
    path = tmp_path / "model.pt"
    plain = {f"model.{name}": nn.Parameter(tensor) for name, tensor in weights(seed=1).items()}
    fsdp = {
        f"model._fsdp_wrapped_module.{name.replace('blocks.', 'blocks._checkpoint_wrapped_module.')}": tensor
        for name, tensor in weights(seed=2).items()
    }
    critic = {f"model.{name}": tensor for name, tensor in weights(seed=3).items()}
    torch.save({"generator": plain, "generator_ema": fsdp, "critic": critic, "step": torch.tensor(3)}, path)
    for part, seed in ((None, 2), ("generator_ema", 2), ("generator", 1), ("critic", 3)):
        assert same(dict(read_network(path, part, heads=4).weights), weights(seed=seed))
    torch.save({"generator": plain, "critic": critic}, path)
    assert same(dict(read_network(path, heads=4).weights), weights(seed=1))
    with pytest.raises(FilmstillError, match=r"model\.pt: has no part 'generator_ema'; it has critic, generator$"):
        read_network(path, "generator_ema", heads=4)
    torch.save({"critic": critic}, path)
    with pytest.raises(FilmstillError, match=r"has no part 'generator'; it has critic$"):
        read_network(path, heads=4)
    torch.save(weights(), path)
    with pytest.raises(FilmstillError, match="has no part 'generator'; it has one network and no parts"):
        read_network(path, "generator", heads=4)


def test_a_self_forcing_file_is_what_that_code_loads(student, tmp_path):
    target = tmp_path / "model.pt"
    convert(student, target, "self-forcing")
    loaded = torch.load(target, weights_only=True)
    assert list(loaded) == ["generator"]
    assert same(loaded["generator"], {f"model.{name}": tensor for name, tensor in weights(mixed=True).items()})
    convert(student, tmp_path / "other.pt", "self-forcing")
    assert (tmp_path / "other.pt").read_bytes() == target.read_bytes()
