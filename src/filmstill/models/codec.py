"""Codecs: pixels to latents and back.

The embedded codec is the orthonormal 4x4 block DCT of an orthonormal luma-chroma transform, reduced to 16 channels
(10 luma, 3 + 3 chroma). Its spatial stride is 4, one latent frame is one pixel frame, and it has no learned weights.
Latents are centred by a mean per channel and scaled by one deviation for all channels: whitening each channel would
scale the noise-like high frequencies up to the size of the picture.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from filmstill.artifacts import CODEC
from filmstill.errors import FilmstillError
from filmstill.params.world import EMBEDDED
from filmstill.params.world import STRIDE as STRIDES
from filmstill.runtime.tensor_files import load_tensors, save_tensors

STRIDE = STRIDES[EMBEDDED]  # pixels per latent in height and width
CHANNELS = 16
DCT = "dct"  # `kind` of the embedded codec in a file's header
_LUMA, _CHROMA = 10, 3  # number of lowest frequencies kept


class Codec(Protocol):
    """Interface of a codec: video [B, F, 3, H, W] in [0, 1] to and from latents [B, f, C, h, w], on its device."""

    def encode(self, video: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...

    def decode_stream(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Decode blocks of latents lazily; concatenated, the videos equal `decode` of the concatenated latents."""


@dataclass(frozen=True)
class DctCodec:
    """Embedded codec with the `mean` [16] and `deviation` [] of the raw latents of the clips it was fitted to."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def fit(cls, video: Tensor) -> "DctCodec":
        """Fit mean and deviation to clips [B, F, 3, H, W] in [0, 1]."""
        raw = _analyse(video).double()
        mean = raw.mean(dim=(0, 1, 3, 4))
        deviation = (raw - mean[:, None, None]).square().mean().sqrt()
        return cls(mean.float(), deviation.float())

    @classmethod
    def load(cls, path: Path) -> "DctCodec":
        """Load a file written by `save`. Raises FilmstillError for any other file."""
        tensors, _ = load_tensors(path)
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != {"mean": (CHANNELS,), "deviation": ()}:
            raise FilmstillError(f"{path}: is not a codec (mean [{CHANNELS}] and one deviation); give {CODEC}")
        return cls(tensors["mean"], tensors["deviation"])

    def save(self, path: Path) -> None:
        """Write mean and deviation to a safetensors file."""
        save_tensors(path, {"mean": self.mean, "deviation": self.deviation}, {"kind": DCT})

    def encode(self, video: Tensor) -> Tensor:
        """Video [B, F, 3, H, W] in [0, 1] to latents [B, F, 16, H/4, W/4]."""
        return (_analyse(video) - self.mean[:, None, None]) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, F, 16, h, w] to video [B, F, 3, 4h, 4w], clamped to [0, 1]."""
        raw = latents.cpu() * self.deviation + self.mean[:, None, None]
        basis = _basis()
        blocks = torch.einsum("bfchw,cp->bfphw", raw, basis)
        pixels = rearrange(blocks, "b f (c p q) h w -> b f c (h p) (w q)", c=3, p=STRIDE, q=STRIDE)
        return ((pixels + 1) / 2).clamp(0, 1)

    def decode_stream(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Decode blocks of latents lazily; concatenated, the videos equal `decode` of the concatenated latents."""
        for block in blocks:
            yield self.decode(block)


def _analyse(video: Tensor) -> Tensor:
    """Raw latents [B, F, 16, H/4, W/4] of video [B, F, 3, H, W] in [0, 1]."""
    pixels = rearrange(video * 2 - 1, "b f c (h p) (w q) -> b f (c p q) h w", p=STRIDE, q=STRIDE)
    return torch.einsum("bfphw,cp->bfchw", pixels, _basis())


@cache
def _basis() -> Tensor:
    """Orthonormal rows [16, 48], each the product of a colour axis and a 4x4 DCT pattern, low frequencies first."""
    n = torch.arange(STRIDE, dtype=torch.float64)
    dct = torch.cos(math.pi / STRIDE * (n[None] + 0.5) * n[:, None]) * math.sqrt(2 / STRIDE)
    dct[0] /= math.sqrt(2)
    colour = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colour /= colour.norm(dim=1, keepdim=True)
    order = sorted(((u, v) for u in range(STRIDE) for v in range(STRIDE)), key=lambda f: (f[0] + f[1], f[0]))
    patterns = torch.stack([torch.outer(dct[u], dct[v]).flatten() for u, v in order])  # [16, 16]
    rows = [
        torch.kron(axis, p)
        for axis, kept in zip(colour, (_LUMA, _CHROMA, _CHROMA), strict=True)
        for p in patterns[:kept]
    ]
    return torch.stack(rows).float()
