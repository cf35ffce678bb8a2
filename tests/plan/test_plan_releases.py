"""What `plan` knows of releases, against their networks."""

import pytest
import torch

from counting import H100, Live, counted, without_numbers
from filmstill.errors import FilmstillError
from filmstill.params.profile import compose
from filmstill.plan import known_models
from filmstill.plan.memory import float32_bytes
from filmstill.plan.run import Run
from filmstill.plan.stages import teacher
from mini_wan import CONFIG as MINI
from mini_wan import write_network


@pytest.fixture
def fake():
    with without_numbers():
        yield


def test_the_encoder_and_the_codec_are_as_large_as_their_networks():
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with torch.device("meta"):
        encoder, vae = UMT5EncoderModel(UMT5Config(**sizes, feed_forward_proj="gated-gelu")), AutoencoderKLWan()
    assert sum(p.numel() for p in encoder.parameters()) == known_models.UMT5_PARAMETERS
    assert sum(p.numel() for p in vae.parameters()) == known_models.VAE_PARAMETERS


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 16), (3, 16, 8), (2, 60, 104)])
def test_decoding_takes_what_is_planned(frames, height, width, fake):
    from diffusers import AutoencoderKLWan

    from filmstill.models.wan_vae import WanVae

    torch.set_default_dtype(torch.bfloat16)
    try:
        codec = WanVae(AutoencoderKLWan().requires_grad_(False).eval())
    finally:
        torch.set_default_dtype(torch.float32)
    latents, live = torch.zeros(2, frames, 16, height, width), Live()
    assert counted(lambda: codec.decode(latents)) == 2 * known_models.vae_decode_flops(tuple(latents.shape[1:]))
    with live:
        codec.decode(latents)
    planned = known_models.vae_decode_bytes(2, 1 + 4 * (frames - 1), 8 * height, 8 * width, 2)
    assert live.peak <= 1.05 * planned
    assert frames == 1 or planned <= 1.1 * live.peak  # the first frame alone takes less


def test_a_release_is_read_from_disk_or_known_by_its_name(tmp_path):
    write_network(tmp_path / "Wan2.1-T2V-14B", "wan", seed=0, config=MINI)
    assert known_models.released_networks(str(tmp_path / "Wan2.1-T2V-14B"), "key")[0].dim == MINI.dim
    assert len(known_models.released_networks("data/released/Wan2.2-T2V-A14B", "key")) == 2
    with pytest.raises(FilmstillError, match=r"^key: is 'nowhere', allowed: a folder that exists, or one named like"):
        known_models.released_networks("nowhere", "key")


def test_a_teacher_of_symbols_that_is_imported_takes_no_training():
    trained, imported = (Run(compose(name, []), H100) for name in ("embedded", "natural"))
    assert teacher(trained).flops > 0 and teacher(trained).checkpoints > 0
    plan = teacher(imported)
    assert (plan.flops, plan.gpus, plan.checkpoints, list(plan.phases)) == (0, 0, 0, ["import"])
    assert plan.artifacts == float32_bytes(imported.config) == teacher(trained).artifacts
