"""Wan's VAE and TAEHV with few random weights, in the released file formats."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from filmstill.formats import wan_vae
from filmstill.formats.wan_vae import import_vae
from filmstill.models.taehv import Taehv

Z_DIM = 16
SEED = 3


def tiny_vae(seed: int, **config: Any) -> Any:
    """Wan2.1's AutoencoderKLWan, 12 times narrower; `config` overrides sizes. Pixels deviate by about 0.12."""
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae: Any = AutoencoderKLWan(**({"base_dim": 8, "z_dim": Z_DIM} | config))
        for name, parameter in vae.named_parameters():
            if name.endswith("gamma"):  # with ones, swapped norms would not be noticed
                nn.init.uniform_(parameter, 0.5, 1.5)
    return vae.requires_grad_(False).eval()


def write_vae(path: Path, layout: Literal["wan", "diffusers"], seed: int, **config: Any) -> None:
    """Write a file like Wan2.1_VAE.pth, or a folder like diffusers' `vae`."""
    vae = tiny_vae(seed, **config)
    if layout == "diffusers":
        vae.save_pretrained(path)
        return
    modules = wan_vae.modules(vae.config.num_res_blocks, len(vae.config.dim_mult))
    inverse = {theirs: ours for ours, theirs in modules.items()}
    torch.save({wan_vae.rename(name, inverse): tensor for name, tensor in vae.state_dict().items()}, path)


def write_taehv(path: Path, seed: int) -> None:
    """Write a file like taew2_1.pth: half precision, with an encoder, of which two tensors suffice here."""
    generator = torch.Generator().manual_seed(seed)
    decoder = Taehv(Z_DIM, (16, 8, 8, 8)).requires_grad_(False)
    for parameter in decoder.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="linear", generator=generator)
        else:
            parameter.uniform_(-0.1, 0.1, generator=generator)
    decoder.decoder[-1].weight *= 0.4  # pixels with a deviation of about 0.1 around grey
    decoder.decoder[-1].bias += 0.5
    encoder = {"encoder.0.weight": torch.zeros(64, 3, 3, 3), "encoder.0.bias": torch.zeros(64)}
    torch.save({name: tensor.half() for name, tensor in (decoder.state_dict() | encoder).items()}, path)


def import_released(folder: Path) -> Path:
    """Write the released files and import them: codec.safetensors with TAEHV, plain.safetensors without."""
    write_vae(folder / "Wan2.1_VAE.pth", "wan", SEED)
    write_vae(folder / "vae", "diffusers", SEED)
    write_taehv(folder / "taew2_1.pth", SEED)
    import_vae(folder / "Wan2.1_VAE.pth", folder / "codec.safetensors", Z_DIM, fast=folder / "taew2_1.pth")
    import_vae(folder / "vae", folder / "plain.safetensors", Z_DIM)
    return folder
