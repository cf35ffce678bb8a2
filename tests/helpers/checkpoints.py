"""Networks with random weights, for the tests of `convert`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats.convert import SUFFIXES
from filmstill.models.dit import DiTConfig, VideoDiT
from goldens import TINY

NAMES = list(VideoDiT(TINY).state_dict())
SHARD = 60_000  # bytes per shard: a tiny network becomes several files


def weights(config: DiTConfig = TINY, seed: int = 0, mixed: bool = False) -> dict[str, Tensor]:
    """Random parameters of a scale that keeps activations moderate; `mixed`: every third is bfloat16."""
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VideoDiT(config).state_dict().items()}
    dtypes = (torch.bfloat16, torch.float32, torch.float32) if mixed else (torch.float32,)
    return {
        name: (0.2 * torch.randn(shape, generator=random) + ("norm" in name)).to(dtypes[n % len(dtypes)])
        for n, (name, shape) in enumerate(shapes.items())
    }


def where(folder: Path, to: str) -> Path:
    """A path in `folder` with a name that layout `to` allows."""
    return folder / f"{to}{(*SUFFIXES[to], '')[0]}"


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether names, dtypes and values are equal."""
    return found.keys() == expected.keys() and all(
        t.dtype == expected[name].dtype and torch.equal(t, expected[name]) for name, t in found.items()
    )


def left(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def line_of(read: Callable[[], object]) -> str:
    """The one line with which `read` refuses its input."""
    with pytest.raises(FilmstillError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)
