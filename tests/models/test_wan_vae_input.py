"""Files and sizes that are not those of Wan's VAE are refused with one line."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from filmstill.errors import FilmstillError
from filmstill.formats.wan_vae import import_vae
from filmstill.models.codec import CHANNELS, DctCodec
from filmstill.models.dit import VideoDiT
from filmstill.models.wan_vae import WanVae
from filmstill.runtime.tensor_files import save_tensors
from goldens import TINY
from tiny_vae import SEED, Z_DIM, import_released, write_vae


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released layouts and the artifacts imported from them, not to be modified."""
    torch.set_num_threads(2)
    return import_released(tmp_path_factory.mktemp("vae"))


def refusal(source: Path, target: Path, z_dim: int = Z_DIM, fast: Path | None = None) -> str:
    """The one-line message with which the import fails; it leaves no file."""
    with pytest.raises(FilmstillError) as refused:
        import_vae(source, target, z_dim, fast)
    line = str(refused.value)
    assert "\n" not in line
    assert not target.exists()
    return line


@pytest.mark.parametrize(
    ("sizes", "name", "value"),
    [((0, 8, 8), "frames", 0), ((4, 8, 8), "frames", 4), ((5, 12, 8), "height", 12), ((5, 8, 0), "width", 0)],
)
def test_other_sizes_are_refused_by_name(files: Path, sizes: tuple[int, int, int], name: str, value: int):
    codec = WanVae.load(files / "plain.safetensors")
    with pytest.raises(FilmstillError, match=f"^{name}: is {value}, allowed: .* for Wan's VAE"):
        codec.latent_shape(*sizes)
    with pytest.raises(FilmstillError, match=f"^{name}: is {value}, allowed: "):
        codec.encode(torch.zeros(1, sizes[0], 3, *sizes[1:]))


def test_another_fast_decoder_is_refused(files: Path, tmp_path: Path):
    target, fast = tmp_path / "codec.safetensors", tmp_path / "taehv.pth"
    tensors = torch.load(files / "taew2_1.pth", weights_only=True)
    torch.save({name: tensor for name, tensor in tensors.items() if name != "decoder.13.conv.weight"}, fast)
    assert "1 missing: decoder.13.conv.weight" in refusal(files / "vae", target, fast=fast)
    torch.save(tensors | {"head.weight": torch.zeros(1)}, fast)
    assert "1 unknown: head.weight" in refusal(files / "vae", target, fast=fast)
    torch.save(tensors | {"decoder.1.weight": torch.zeros(16, 48, 3, 3)}, fast)  # Wan2.2's
    assert "decoder.1.weight [16, 48, 3, 3] for [16, 16, 3, 3]" in refusal(files / "vae", target, fast=fast)
    assert "Wan2.1_VAE.pth: not the weights" in refusal(files / "vae", target, fast=files / "Wan2.1_VAE.pth")


@pytest.mark.parametrize("layout", ["Wan2.1_VAE.pth", "vae"])
def test_a_vae_of_another_z_dim_is_refused_by_both_numbers(files: Path, tmp_path: Path, layout: str):
    line = refusal(files / layout, tmp_path / "codec.safetensors", z_dim=48)
    assert re.search(rf"{layout}: a VAE of z_dim 16; .* 48 channels$", line)


def test_statistics_are_known_for_wans_own_file_of_16_channels_only(tmp_path: Path):
    write_vae(tmp_path / "eight.pth", "wan", SEED, z_dim=8)
    line = refusal(tmp_path / "eight.pth", tmp_path / "codec.safetensors", z_dim=8)
    assert "eight.pth: lacks 8 latents_mean" in line


def test_damaged_and_wrong_files_are_refused(files: Path, tmp_path: Path):
    target, wrong = tmp_path / "codec.safetensors", tmp_path / "wrong.pth"
    wrong.write_bytes((files / "Wan2.1_VAE.pth").read_bytes()[:-100_000])
    assert "wrong.pth: is truncated: a file of torch.save without its end" in refusal(wrong, target)
    torch.save(VideoDiT(TINY).state_dict(), wrong)
    assert "wrong.pth: not a VAE of Wan" in refusal(wrong, target)
    tensors = torch.load(files / "Wan2.1_VAE.pth", weights_only=True)
    torch.save({name: tensor for name, tensor in tensors.items() if not name.startswith("decoder.middle.1")}, wrong)
    assert "5 missing: decoder.middle.1.norm.gamma" in refusal(wrong, target)
    torch.save({name: tensor for name, tensor in tensors.items() if "downsamples" not in name}, wrong)
    assert "wrong.pth: strides 1 in time and 1 in space; Wan2.1's are 4 and 8" in refusal(wrong, target)
    assert "absent.pth: no such file" in refusal(tmp_path / "absent.pth", target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": ...}, "config.json: not the config of an AutoencoderKLWan: has no z_dim"),
        ({"dim_mult": "wide"}, "vae: its config does not describe an AutoencoderKLWan"),
        ({"latents_mean": None}, "vae: its config does not describe an AutoencoderKLWan"),
        ({"latents_std": [1.0, 2.0]}, "vae: lacks 16 latents_mean and 16 latents_std"),
        ({"temperal_downsample": [False, False, True]}, "vae: strides 2 in time and 8 in space; Wan2.1's are 4 and 8"),
        ({"base_dim": 12}, "vae: not the weights of this network"),
    ],
)
def test_a_config_of_another_network_is_refused(files: Path, tmp_path: Path, changes: dict, message: str):
    folder = tmp_path / "vae"
    folder.mkdir()
    save_file(load_file(files / "vae/diffusion_pytorch_model.safetensors"), folder / "model.safetensors")
    config = json.loads((files / "vae/config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({name: x for name, x in config.items() if x is not ...}))
    assert message in refusal(folder, tmp_path / "codec.safetensors")


def test_only_its_own_file_is_loaded(files: Path, tmp_path: Path):
    path = tmp_path / "codec.safetensors"
    DctCodec(torch.zeros(CHANNELS), torch.tensor(1.0)).save(path)
    other = tmp_path / "other.safetensors"
    for header, reason in (
        ({}, "has no 'config' in its header; it was not written by a filmstill stage"),
        ({"config": "{"}, "does not hold the VAE of its header's config (Expecting property name"),
        ({"config": '{"dim": 3}'}, "does not hold the VAE of its header's config ("),
    ):
        save_tensors(other, {"vae.x": torch.zeros(1)}, {"kind": "wan_vae", **header})
        with pytest.raises(FilmstillError) as refused:
            WanVae.load(other)
        assert str(refused.value).startswith(f"{other}: {reason}") and "\n" not in str(refused.value)
    with pytest.raises(FilmstillError, match=r"codec\.safetensors: is not Wan's VAE \(kind dct, wan_vae is needed\)"):
        WanVae.load(path)
    path.write_bytes((files / "plain.safetensors").read_bytes()[:-1000])
    with pytest.raises(FilmstillError, match=r"codec\.safetensors: not a whole safetensors file"):
        WanVae.load(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_res_blocks": 3_000_000}, "12000000 blocks for "),
        ({"dim_mult": [1] * 100_000}, "200000 blocks for "),
        ({"num_res_blocks": "2"}, ""),
        ({"dim_mult": None}, ""),
        ({"base_dim": 10**30}, ""),
    ],
)
def test_a_config_of_another_network_is_refused_before_it_is_built(
    files: Path, tmp_path: Path, changes: dict, reason: str
):
    folder = Path(shutil.copytree(files / "vae", tmp_path / "vae"))
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    line = refusal(folder, tmp_path / "codec.safetensors")
    assert line.startswith(f"{folder}: its config does not describe an AutoencoderKLWan ({reason}"), line
