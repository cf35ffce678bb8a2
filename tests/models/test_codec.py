"""The embedded codec is an orthogonal projection on 16 channels, for whole clips and in blocks."""

from pathlib import Path

import pytest
import torch

from filmstill.errors import FilmstillError
from filmstill.models.codec import CHANNELS, STRIDE, DctCodec
from filmstill.runtime.tensor_files import save_tensors

PLAIN = DctCodec(torch.zeros(CHANNELS), torch.tensor(1.0))


def clips(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 5, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


def fitted() -> DctCodec:
    return DctCodec.fit(clips())


def test_latents_survive_decoding_so_the_basis_is_orthonormal():
    """encode(decode(z)) = z if the rows are orthonormal; small latents avoid the clamp."""
    z = 0.05 * torch.randn(2, 3, CHANNELS, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(PLAIN.encode(PLAIN.decode(z)), z, atol=1e-6)
    energy = (2 * PLAIN.decode(z) - 1).square().sum()
    assert energy.item() == pytest.approx(z.square().sum().item(), rel=1e-5)


def test_decode_of_encode_is_the_orthogonal_projection():
    """decode(encode(.)) is idempotent, and the residual is orthogonal to the result."""
    x = 0.5 + 0.05 * (clips() - 0.5)
    kept = PLAIN.decode(PLAIN.encode(x))
    assert torch.allclose(PLAIN.decode(PLAIN.encode(kept)), kept, atol=1e-6)
    dropped = x - kept
    assert dropped.norm() > 0.1 * (x - 0.5).norm()  # 16 of 48 numbers per block are kept: noise loses most
    assert (dropped * (kept - 0.5)).sum().abs() < 1e-4 * dropped.norm() * (kept - 0.5).norm()


def test_a_fitted_codec_centres_each_channel_and_scales_all_by_one_deviation():
    latents = fitted().encode(clips())
    assert latents.shape == (2, 5, CHANNELS, 16 // STRIDE, 24 // STRIDE)
    assert latents.mean(dim=(0, 1, 3, 4)).abs().max() < 1e-5
    assert latents.square().mean().item() == pytest.approx(1, abs=1e-5)
    assert latents.std(dim=(0, 1, 3, 4)).max() > 1.2 * latents.std(dim=(0, 1, 3, 4)).min()  # not whitened


def test_a_fitted_codec_gives_the_same_pictures_as_the_plain_one():
    """Decoding inverts the normalisation, which therefore changes latents only."""
    codec = fitted()
    assert torch.allclose(codec.decode(codec.encode(clips(1))), PLAIN.decode(PLAIN.encode(clips(1))), atol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_streamed_decoding_is_the_whole_decoding_bit_for_bit(block):
    codec = fitted()
    latents = codec.encode(clips(2))
    pieces = list(codec.decode_stream(iter(latents.split(block, dim=1))))
    assert [piece.shape[1] for piece in pieces] == [len(part) for part in torch.arange(5).split(block)]
    assert torch.equal(torch.cat(pieces, dim=1), codec.decode(latents))


def test_pictures_stay_between_black_and_white():
    video = fitted().decode(10 * torch.randn(1, 2, CHANNELS, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert video.min() == 0
    assert video.max() == 1


def test_a_codec_comes_back_from_its_file_and_from_no_other(tmp_path: Path):
    codec, path = fitted(), tmp_path / "codec.safetensors"
    codec.save(path)
    assert torch.equal(DctCodec.load(path).encode(clips(3)), codec.encode(clips(3)))
    for wrong in ({"latents": codec.mean}, {"mean": codec.mean[:3], "deviation": codec.deviation}):
        save_tensors(path, wrong)
        with pytest.raises(FilmstillError, match=r"codec\.safetensors: is not a codec"):
            DctCodec.load(path)
