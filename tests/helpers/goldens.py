"""Golden tensors of the released Self-Forcing code, and adapters between its layouts and ours."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from filmstill.models.dit import DiTConfig, VideoDiT

FOLDER = Path(__file__).parents[1] / "golden"
TINY = DiTConfig(dim=48, ffn_dim=96, num_heads=4, num_layers=2, freq_dim=32, text_dim=16, in_channels=4)
FRAME_TOKENS = 6


@cache
def golden(name: str) -> dict[str, Tensor]:
    """Tensors of a golden by name."""
    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts(name: str) -> dict:
    """Settings of a golden."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def tiny(name: str) -> VideoDiT:
    """The tiny network with weights stored from the released code, under their released names."""
    model = VideoDiT(TINY)
    model.load_state_dict(load_file(FOLDER / "models" / f"tiny_{name}.safetensors"), strict=True)
    return model


def swap(x: Tensor) -> Tensor:
    """[B, C, F, H, W] to [B, F, C, H, W] or back."""
    return x.transpose(1, 2)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Assert that the largest difference is at most `tolerance` times the largest magnitude of `theirs`."""
    assert ours.shape == theirs.shape
    worst = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()
    assert worst <= tolerance, f"relative error {worst:.2e} > {tolerance:.0e}"


def pad_text(rows: list[Tensor], length: int) -> Tensor:
    """Token vectors of prompts of different lengths, padded with zeros to [B, length, D]."""
    out = torch.zeros(len(rows), length, rows[0].shape[-1])
    for row, text in zip(out, rows, strict=True):
        row[: len(text)] = text
    return out


def looked_up(t: Tensor, shift: int) -> Tensor:
    """Sigma that the released code uses for t: the nearest entry of its table of 1000 (defect 8)."""
    grids = golden("03_scheduler")
    grid = f"grid.shift{shift}.n1000"
    return grids[f"{grid}.sigmas"][(grids[f"{grid}.timesteps"] - t.float()[:, None]).abs().argmin(dim=1)]
