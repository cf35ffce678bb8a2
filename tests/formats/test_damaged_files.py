"""A weights file with any bytes wrong or cut off ends in one line or is read; nothing else escapes."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import weights
from filmstill.errors import FilmstillError
from filmstill.formats.layouts import read_network
from filmstill.formats.release import find_networks
from filmstill.models.weights import save_model
from goldens import TINY
from mini_wan import write_network

DRAWS = 150
TENSORS = {"a": torch.zeros(3, 4), "b": torch.ones(2)}


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Up to 20 bytes changed, most of them at the beginning, and often cut off."""
    changed = bytearray(content)
    for _ in range(dice.choice((0, 1, 3, 20))):
        changed[dice.randrange(min(len(changed), dice.choice((16, 400, len(changed)))))] = dice.randrange(256)
    return bytes(changed[: dice.randrange(len(changed) + 1)] if dice.random() < 0.4 else changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["zip.pt", "legacy.pt", "plain.safetensors", "ours.safetensors"])
def test_a_damaged_file(tmp_path: Path, kind: str):
    whole = tmp_path / kind
    if kind == "ours.safetensors":
        save_model(whole, weights(), TINY, {})
    elif kind == "plain.safetensors":
        save_file(TENSORS, whole)
    else:
        torch.save(TENSORS, whole, _use_new_zipfile_serialization=kind == "zip.pt")
    content, dice, path = whole.read_bytes(), random.Random(kind), tmp_path / f"damaged{whole.suffix}"
    for _ in range(DRAWS):
        path.write_bytes(damaged(content, dice))
        try:
            read_network(path)
        except FilmstillError as error:
            assert "\n" not in str(error) and str(path) in str(error)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "config.json", "x.safetensors.index.json"])
def test_a_damaged_file_of_a_release(tmp_path: Path, name: str):
    """`check` and the import, each on its own, since `check` reads headers only."""
    folder = tmp_path / "wan"
    write_network(folder, "wan", seed=0)
    content, dice = b'{"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "x"}}', random.Random(name)
    if name.startswith("x"):
        name = f"diffusion_pytorch_model{name[1:]}"
    else:
        content = (folder / name).read_bytes()
    for _ in range(DRAWS):
        (folder / name).write_bytes(damaged(content, dice))
        for read in (find_networks, read_network):
            try:
                read(folder)
            except FilmstillError as error:
                assert "\n" not in str(error) and str(folder) in str(error)
