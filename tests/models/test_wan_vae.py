"""Wan's VAE equals diffusers' from either released layout, for whole clips and in blocks; TAEHV as its fast decoder."""

import time
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats import wan_vae
from filmstill.formats.wan_vae import import_vae
from filmstill.models.load import pixel_frames
from filmstill.models.taehv import WIDTHS, Taehv
from filmstill.models.wan_vae import WanVae
from filmstill.training.window_boundary import encoded_as_image
from goldens import assert_close
from tiny_vae import SEED, Z_DIM, import_released, tiny_vae

PARITY, STREAM = 2e-5, 1e-5
RAGGED = [[3, 3], [1] * 6, [1, 3, 2], [5, 1], [2, 4]]  # latent frames per block


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released layouts and the artifacts imported from them, not to be modified."""
    torch.set_num_threads(2)
    return import_released(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module", params=[False, True], ids=["vae", "taehv"])
def codec(files: Path, request: pytest.FixtureRequest) -> WanVae:
    """Decodes with the VAE, then with TAEHV."""
    return WanVae.load(files / "codec.safetensors", fast=request.param)


@pytest.fixture(scope="module")
def theirs(files: Path):
    """(network as loaded by diffusers, its mean, its deviation)."""
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(files / "vae").requires_grad_(False)
    return vae, *(torch.tensor(vae.config[f"latents_{name}"]).view(1, Z_DIM, 1, 1, 1) for name in ("mean", "std"))


def latents(frames: int, seed: int = 0, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, Z_DIM, 3, 4, generator=torch.Generator().manual_seed(seed))


def clips(frames: int, seed: int = 0) -> Tensor:
    return torch.rand(2, frames, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


# Parity


def test_both_layouts_are_one_codec(files: Path):
    """The .pth contains no sizes: they are inferred from the shapes and equal those of diffusers' config.json."""
    wan, diffusers = (WanVae.load(files / name) for name in ("codec.safetensors", "plain.safetensors"))
    assert dict(wan.vae.config) == dict(diffusers.vae.config)
    assert torch.equal(wan.decode(latents(2)), diffusers.decode(latents(2)))
    assert torch.equal(wan.encode(clips(5)), diffusers.encode(clips(5)))


def test_decoding_is_that_of_diffusers(files: Path, theirs):
    vae, mean, deviation = theirs
    ours, z = WanVae.load(files / "codec.safetensors"), latents(4)
    start = time.perf_counter()
    video = ours.decode(z)
    print(f"\n13 frames of 24x32, twice, decoded in {time.perf_counter() - start:.3f} s")
    expected = (vae.decode(z.transpose(1, 2) * deviation + mean).sample.transpose(1, 2) + 1) / 2
    assert_close(video, expected, PARITY)
    assert video.shape == (2, 13, 3, 24, 32)
    assert not video.requires_grad
    assert 0.1 < video.std() < 0.3  # rarely clamped, so that a difference would show
    assert ((video > 0) & (video < 1)).float().mean() > 0.95


def test_encoding_is_that_of_diffusers_less_wans_mean_over_its_deviation(files: Path, theirs):
    vae, mean, deviation = theirs
    ours = WanVae.load(files / "codec.safetensors")
    z = ours.encode(clips(9))
    raw = vae.encode(clips(9).transpose(1, 2) * 2 - 1).latent_dist.mode()
    assert_close(z, ((raw - mean) / deviation).transpose(1, 2), PARITY)
    assert z.shape == (2, *ours.latent_shape(9, 16, 24))
    assert ours.mean[5].item() == pytest.approx(0.9653)  # a published value, so the order of channels is checked
    assert ours.deviation[8].item() == pytest.approx(3.2687)


def test_the_released_converter_agrees_with_our_names(files: Path):
    """diffusers' converter turns the .pth into the state dict that it was written from."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    converted = convert_wan_vae_to_diffusers(torch.load(files / "Wan2.1_VAE.pth", weights_only=True))
    expected = tiny_vae(SEED).state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


@pytest.mark.parametrize("config", [{}, {"base_dim": 8, "num_res_blocks": 1}, {"base_dim": 8, "num_res_blocks": 3}])
def test_names_map_one_to_one_and_the_sizes_come_back_from_the_shapes(config: dict):
    """`{}` is Wan2.1_VAE.pth at its real size: 194 tensors, 127 million parameters."""
    with torch.device("meta"):
        vae = tiny_vae(0, base_dim=96) if not config else tiny_vae(0, **config)
    state = vae.state_dict()
    table = wan_vae.modules(vae.config.num_res_blocks, len(vae.config.dim_mult))
    inverse = {theirs: ours for ours, theirs in table.items()}
    assert len(inverse) == len(table)
    shapes = {wan_vae.rename(name, inverse): tuple(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == len(state)
    assert [wan_vae.rename(name, table) for name in shapes] == list(state)
    sizes = wan_vae.sizes(shapes)
    assert sizes == {name: vae.config[name] for name in sizes}
    if not config:
        assert len(state) == 194
        assert sum(tensor.numel() for tensor in state.values()) == 126_892_531
        assert shapes["decoder.upsamples.4.shortcut.weight"] == (384, 192, 1, 1, 1)
        assert shapes["encoder.downsamples.5.time_conv.weight"] == (192, 192, 3, 1, 1)
        assert shapes["decoder.upsamples.11.resample.1.weight"] == (96, 192, 3, 3)


# Streams


@pytest.mark.parametrize("blocks", RAGGED, ids=str)
def test_a_streamed_clip_is_the_whole_clip(codec: WanVae, files: Path, blocks: list[int]):
    z = latents(6)
    whole = codec.decode(z)
    pieces = list(codec.decode_stream(iter(z.split(blocks, dim=1))))
    assert [piece.shape[1] for piece in pieces] == [4 * n - 3 * (i == 0) for i, n in enumerate(blocks)]
    assert whole.shape[1] == codec.pixel_frames(6) == pixel_frames(files / "codec.safetensors", 6) == 21
    assert (torch.cat(pieces, dim=1) - whole).abs().max() <= STREAM


def test_the_first_frame_of_a_loss_window_is_its_last_pixel_frame_encoded_as_an_image(codec: WanVae):
    stream = latents(4)
    image = encoded_as_image(codec, stream.split(3, dim=1))
    assert image.shape == stream[:, :1].shape
    torch.testing.assert_close(image, codec.encode(codec.decode(stream)[:, -1:]))


def test_two_streams_may_interleave(codec: WanVae):
    """Each stream has its own cache, also with a decode and an encode in between."""
    first, second = latents(5, seed=1), latents(4, seed=2)
    streams = codec.decode_stream(iter(first.split(2, dim=1))), codec.decode_stream(iter(second.split(1, dim=1)))
    pieces: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in zip_longest(*streams):
        for own, piece in zip(pieces, pair, strict=True):
            own += [piece] if piece is not None else []
        codec.decode(latents(2, seed=3))
        codec.encode(clips(5))
    for own, z in zip(pieces, (first, second), strict=True):
        assert (torch.cat(own, dim=1) - codec.decode(z)).abs().max() <= STREAM


def test_the_stream_is_lazy(codec: WanVae):
    """The first video is yielded before the second block is requested."""

    def blocks():
        yield latents(1)
        raise AssertionError("the second block was requested")

    assert next(codec.decode_stream(blocks())).shape[1] == 1


def test_other_precisions_come_out_as_float32(files: Path):
    codec = WanVae.load(files / "codec.safetensors")
    z = latents(2)
    whole = codec.decode(z)
    assert_close(codec.decode(z.double()), whole, PARITY)
    half = WanVae.load(files / "codec.safetensors", fast=True).to("cpu", torch.bfloat16)
    small = WanVae.load(files / "codec.safetensors", fast=True).decode(z)
    assert_close(half.decode(z.bfloat16()), small, 0.05)
    half.fast = None
    assert_close(half.decode(z.bfloat16()), whole, 0.05)
    assert half.encode(clips(5)).dtype == half.decode(z).dtype == torch.float32


# Shapes


def test_latent_frames_are_1_plus_k_of_1_plus_4k_pixel_frames(files: Path):
    codec = WanVae.load(files / "plain.safetensors")
    assert codec.channels == Z_DIM
    assert codec.latent_shape(81, 480, 832) == (21, 16, 60, 104)
    for frames in (1, 5, 9):
        f, _, h, w = codec.latent_shape(frames, 16, 24)
        assert codec.encode(clips(frames)).shape == (2, f, Z_DIM, h, w)
        assert codec.pixel_frames(f) == frames


# TAEHV


def taehv(weights: dict[str, Tensor], z: Tensor) -> Tensor:
    """TAEHV on a whole clip, from the released names: each layer runs on all frames, and the past of a block is its
    input shifted by one frame."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight, bias = weights[f"decoder.{name}.weight"], weights.get(f"decoder.{name}.bias")
        return F.conv2d(x.flatten(0, 1), weight, bias, padding="same").unflatten(0, x.shape[:2])

    x = F.relu(conv("1", 3 * torch.tanh(z / 3)))
    for first, times in ((3, 1), (9, 2), (15, 2)):
        for n in range(first, first + 3):
            past = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
            y = F.relu(conv(f"{n}.conv.0", torch.cat([x, past], 2)))
            x = F.relu(conv(f"{n}.conv.4", F.relu(conv(f"{n}.conv.2", y))) + x)
        x = conv(f"{first + 4}.conv", x.repeat_interleave(2, 3).repeat_interleave(2, 4))
        x = conv(f"{first + 5}", x.unflatten(2, (times, -1)).flatten(1, 2))
    return conv("22", F.relu(x))[:, 3:].clamp(0, 1)


def test_taehv_is_its_formula_over_all_frames_at_once(files: Path):
    weights = torch.load(files / "taew2_1.pth", weights_only=True)
    z = 2 * latents(4)  # partly beyond the soft clamp
    video = WanVae.load(files / "codec.safetensors", fast=True).decode(z)
    assert_close(video, taehv({name: tensor.float() for name, tensor in weights.items()}, z), PARITY)
    assert 0.05 < video.std() < 0.4
    assert ((video > 0) & (video < 1)).float().mean() > 0.8


def test_taehv_at_its_true_size_has_the_released_names_and_shapes():
    """taew2_1.pth has 64 tensors in its decoder; convolutions that change frames or widths have no bias."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Taehv(Z_DIM, WIDTHS).state_dict().items()}
    expected = {"decoder.1.weight": (256, 16, 3, 3), "decoder.1.bias": (256,)}
    expected |= {"decoder.22.weight": (3, 64, 3, 3), "decoder.22.bias": (3,)}
    for start, width, out, times in ((3, 256, 128, 1), (9, 128, 64, 2), (15, 64, 64, 2)):
        for n, inner in ((n, inner) for n in range(start, start + 3) for inner in (0, 2, 4)):
            inputs = 2 * width if inner == 0 else width
            expected[f"decoder.{n}.conv.{inner}.weight"] = (width, inputs, 3, 3)
            expected[f"decoder.{n}.conv.{inner}.bias"] = (width,)
        expected[f"decoder.{start + 4}.conv.weight"] = (width * times, width, 1, 1)
        expected[f"decoder.{start + 5}.weight"] = (out, width, 3, 3)
    assert shapes == expected


def test_the_fast_decoder_decodes_and_the_vae_encodes(files: Path):
    fast, plain = WanVae.load(files / "codec.safetensors", fast=True), WanVae.load(files / "codec.safetensors")
    assert torch.equal(fast.encode(clips(5)), plain.encode(clips(5)))
    assert (fast.decode(latents(2)) - plain.decode(latents(2))).abs().mean() > 0.01
    with pytest.raises(FilmstillError, match=r"plain\.safetensors: has no fast decoder"):
        WanVae.load(files / "plain.safetensors", fast=True)


def test_the_file_is_the_same_whichever_way_it_came(files: Path, tmp_path: Path):
    """Equal weights give equal bytes, so keys of the file do not depend on the released layout."""
    import_vae(files / "Wan2.1_VAE.pth", tmp_path / "codec.safetensors", Z_DIM)
    assert (tmp_path / "codec.safetensors").read_bytes() == (files / "plain.safetensors").read_bytes()
