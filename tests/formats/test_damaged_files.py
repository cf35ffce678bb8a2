"""A released file with any bytes wrong or cut off ends in one line or is read; nothing else escapes."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import line_of, weights
from filmstill.errors import FilmstillError
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from filmstill.formats.release import Release, find_networks
from filmstill.models.weights import save_model
from goldens import TINY
from mini_wan import write_mini, write_network

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


# What is under the name of a release's JSON; what it is; what to do.
JSON_KINDS = {
    "page": (
        b"<!DOCTYPE html>\n<html>",
        "is a web page (HTML) (<!DOCTYPE html> <html>)",
        "log in or accept the model's",
    ),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\nsize 50\n",
        "is a Git LFS pointer to 50 bytes, not",
        "git lfs pull",
    ),
    "empty": (b"", "is empty (0 bytes)", "download it again"),
    "nested": (b'{"a":' + b"[" * 200_000, "is JSON nested too deeply", "download it again"),
    "half": (b'{"dim": 48', "is damaged or truncated JSON (Expecting ',' delimiter", "download it again"),
    "latin-1": (b'{"dim": "\xe9"}', "is damaged or truncated JSON (", "download it again"),
    "list": (b"[1]", "is a JSON list", "download it again"),
}


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_released_json_of_another_kind_is_named(tmp_path: Path, kind: str):
    """By `check` and the import, and by `convert` where it reads the file."""
    content, what, remedy = JSON_KINDS[kind]
    folder = tmp_path / "p"
    write_mini(folder, "diffusers")
    for name in ("model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(content)
        reads: list[Callable[[], object]] = [lambda: Release.find(folder)]
        if name.startswith(("model", "transformer")):
            reads.append(lambda: convert(folder, tmp_path / "out", "wan"))
        for read in reads:
            line = line_of(read)
            assert line.startswith(f"{path}: {what}") and ", allowed: a whole JSON object; " in line, line
            assert remedy in line
        path.write_bytes(whole)
    index = folder / "transformer/diffusion_pytorch_model.safetensors.index.json"
    index.write_bytes(content)
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    assert line_of(lambda: Release.find(folder)).startswith(f"{index}: {what}")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft/adapter_config.json").write_bytes(content)
    assert f"adapter_config.json: {what}" in line_of(lambda: read_network(tmp_path / "peft"))


@pytest.mark.parametrize("number", ["3000000", "9" * 5000, "01"])
def test_a_block_out_of_order_is_named_and_not_built(tmp_path, number):
    path, start = tmp_path / "a.safetensors", time.monotonic()
    save_file({**weights(), f"blocks.{number}.self_attn.q.weight": torch.zeros(1)}, path)
    with pytest.raises(FilmstillError) as refused:
        read_network(path, heads=4)
    assert str(refused.value) == (
        f"{path}: has blocks.{number[:20]} and no blocks.2, allowed: 3 blocks, numbered from 0 without a gap; download "
        "it again, or save all of its blocks"
    )
    assert time.monotonic() - start < 10


def test_layers_that_only_the_config_declares_are_not_built(tmp_path):
    folder = tmp_path / "wan"
    folder.mkdir()
    tensors = {name: tensor for name, tensor in weights().items() if not name.startswith("blocks.")}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "num_layers": 200_000}))
    start = time.monotonic()
    with pytest.raises(FilmstillError, match=r"not the weights of this network: \d+ missing: blocks\.0\.cross"):
        read_network(folder, heads=4)
    assert time.monotonic() - start < 10
