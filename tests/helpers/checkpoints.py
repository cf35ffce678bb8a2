"""Random networks in files, for the tests of `convert`."""

from pathlib import Path

import torch
from torch import Tensor

from filmstill.formats.convert import SUFFIXES
from filmstill.models.dit import DiTConfig, VideoDiT
from goldens import TINY

NAMES = list(VideoDiT(TINY).state_dict())
SHARD = 60_000  # bytes: several files for a tiny network


def weights(config: DiTConfig = TINY, seed: int = 0, mixed: bool = False) -> dict[str, Tensor]:
    """Every parameter random, near what keeps activations moderate; `mixed`: every third is bfloat16."""
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VideoDiT(config).state_dict().items()}
    dtypes = (torch.bfloat16, torch.float32, torch.float32) if mixed else (torch.float32,)
    return {
        name: (0.2 * torch.randn(shape, generator=random) + ("norm" in name)).to(dtypes[n % len(dtypes)])
        for n, (name, shape) in enumerate(shapes.items())
    }


def where(folder: Path, to: str) -> Path:
    return folder / f"{to}{(*SUFFIXES[to], '')[0]}"


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        t.dtype == theirs[name].dtype and torch.equal(t, theirs[name]) for name, t in ours.items()
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
