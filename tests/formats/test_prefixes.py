"""Prefixes of wrappers and of ComfyUI come off where every tensor has the same one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import line_of, weights
from filmstill.formats.convert import convert
from filmstill.formats.layouts import read_network
from filmstill.formats.tensor_names import to_diffusers
from filmstill.models.weights import save_model
from mini_wan import CONFIG

PREFIXES = [
    "model.diffusion_model.",
    "diffusion_model.",
    "_orig_mod.",
    "module.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model._orig_mod.",
    "model._fsdp_wrapped_module._orig_mod.",
    "module.model.diffusion_model.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", ["wan", "diffusers", "part"])
def test_prefixes_before_every_tensor_come_off(tmp_path: Path, prefix: str, layout: str):
    rename = to_diffusers if layout == "diffusers" else str
    tensors = {prefix + rename(name): tensor for name, tensor in weights(CONFIG).items()}
    if layout == "part":
        torch.save({"generator_ema": tensors, "critic": {"model.head.bias": torch.zeros(1)}}, tmp_path / "a.pt")
    else:
        save_file(tensors, tmp_path / "a.safetensors")
    source = tmp_path / ("a.pt" if layout == "part" else "a.safetensors")
    convert(source, tmp_path / "b.safetensors", "filmstill", heads=4)
    save_model(tmp_path / "expected.safetensors", weights(CONFIG), CONFIG, {})
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_mixed_prefixes_are_refused_by_name(tmp_path: Path):
    names = list(weights(CONFIG))
    tensors = {(f"_orig_mod.{name}" if name in names[:3] else name): t for name, t in weights(CONFIG).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    line = line_of(lambda: read_network(tmp_path / "a.safetensors", heads=4))
    assert line == (
        f"{tmp_path / 'a.safetensors'}: is of mixed prefixes: {len(names) - 3} tensors with no prefix "
        f"({min(names[3:])}); 3 tensors with _orig_mod. (_orig_mod.{min(names[:3])}); allowed: the same one; "
        "save the network alone"
    )
    others = {"first_stage_model.conv1.bias": torch.zeros(1), "text_encoders.t5.shared.weight": torch.zeros(1, 1)}
    save_file(
        {**{f"model.diffusion_model.{name}": t for name, t in weights(CONFIG).items()}, **others},
        tmp_path / "a.safetensors",
    )
    line = line_of(lambda: read_network(tmp_path / "a.safetensors", heads=4))
    assert f"{len(names)} tensors with model.diffusion_model. (" in line
    assert "2 tensors with no prefix (first_stage_model.conv1.bias)" in line
