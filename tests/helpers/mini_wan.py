"""Write a miniature Wan with random weights in the released files' formats and names (`make mini`).

Usage: mini_wan.py FOLDER [wan|diffusers|experts]. The layout is Wan-AI's (the default), a diffusers pipeline, or two
experts as in Wan2.2's A14B. All sizes are those of params/wan-mini.yaml.
"""

import sys
from pathlib import Path
from typing import Literal

import torch

from filmstill.formats.convert import convert
from filmstill.formats.release import HIGH, LOW
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.weights import save_model
from filmstill.runtime.files import write_json
from tiny_umt5 import WAN_FILE, write_encoder, write_tokenizer
from tiny_vae import write_taehv, write_vae

CONFIG = DiTConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=2, freq_dim=32, text_dim=32, in_channels=16)
WORDS = [
    "a",
    "an",
    "the",
    "red",
    "green",
    "blue",
    "yellow",
    "magenta",
    "cyan",
    "star",
    "heart",
    "club",
    "sun",
    "flag",
    "sways",
    "bobs",
    "circles",
    "clockwise",
]


def write_network(folder: Path, layout: Literal["wan", "diffusers"], seed: int, config: DiTConfig = CONFIG) -> None:
    """Write a transformer's folder as released: config.json and diffusion_pytorch_model.safetensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VideoDiT(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    ours = folder.with_name(f".{folder.name}.safetensors")
    save_model(ours, model.state_dict(), config, {"text_len": 24})
    convert(ours, folder, layout)
    ours.unlink()


def write_mini(
    folder: Path, layout: Literal["wan", "diffusers", "experts"] = "wan", config: DiTConfig = CONFIG
) -> None:
    """Write everything that the teacher stage reads from a release."""
    if layout == "experts":
        write_network(folder / HIGH, "wan", seed=1, config=config)
        write_network(folder / LOW, "wan", seed=2, config=config)
    elif layout == "wan":
        write_network(folder, "wan", seed=0, config=config)
        write_encoder(folder / WAN_FILE, "wan", seed=3)
        write_tokenizer(folder / "google" / "umt5-xxl" / "tokenizer.json", WORDS)
        write_vae(folder / "Wan2.1_VAE.pth", "wan", seed=4)
        write_taehv(folder / "taew2_1.pth", seed=5)
    else:
        write_network(folder / "transformer", "diffusers", seed=0, config=config)
        write_encoder(folder / "text_encoder", "diffusers", seed=3)
        write_tokenizer(folder / "tokenizer" / "tokenizer.json", WORDS)
        write_vae(folder / "vae", "diffusers", seed=4)
        write_json(folder / "model_index.json", {"_class_name": "WanPipeline"})


if __name__ == "__main__":
    write_mini(Path(sys.argv[1]), *sys.argv[2:])  # type: ignore[arg-type]
