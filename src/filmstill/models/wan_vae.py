"""Wan2.1's video VAE as a codec, loaded from filmstill's file.

The network is diffusers' `AutoencoderKLWan`. Latents are normalised by Wan's mean and deviation per channel. The first
latent frame is one pixel frame, every later one four. The cache of the decoder's causal convolutions belongs to a
stream, not to the network, so streams may interleave, and a clip decoded in blocks equals the clip decoded at once.
TAEHV (taehv.py) can decode in place of the VAE.

Source: Wan2.1 technical report (arXiv:2503.20314), its `wan/modules/vae.py`, and diffusers.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from filmstill.errors import FilmstillError
from filmstill.models.taehv import Taehv, make_taehv
from filmstill.runtime.tensor_files import load_tensors

KIND = "wan_vae"
TIME_STRIDE, SPACE_STRIDE = 4, 8  # frames and pixels per latent; the first latent is one frame
STATISTICS = ("latents_mean", "latents_std")
# Keys of diffusers' config.json that define the network, as spelled there.
CONFIG = ("base_dim", "z_dim", "dim_mult", "num_res_blocks", "attn_scales", "temperal_downsample", *STATISTICS)


class WanVae:
    """Codec in which `vae`, an AutoencoderKLWan in evaluation mode, encodes, and `fast`, if given, decodes."""

    def __init__(self, vae: Any, fast: Taehv | None = None) -> None:
        self.vae = vae
        self.fast = fast
        self.channels: int = vae.config.z_dim
        self.mean = torch.tensor(vae.config.latents_mean)[:, None, None]
        self.deviation = torch.tensor(vae.config.latents_std)[:, None, None]

    @classmethod
    def load(cls, path: Path, fast: bool = False) -> "WanVae":
        """Load a file written by `import_vae`, in float32 on the CPU. fast: decode with the file's TAEHV.

        Raises FilmstillError for any other file, and if `fast` is set but the file has no TAEHV.
        """
        tensors, header = load_tensors(path)
        if header.get("kind") != KIND:
            raise FilmstillError(f"{path}: is not Wan's VAE (kind {header.get('kind')}, {KIND} is needed)")
        if "config" not in header:
            raise FilmstillError(f"{path}: has no 'config' in its header; it was not written by a filmstill stage")
        weights = {name: tensor.float() for name, tensor in _under("vae.", tensors).items()}
        try:
            vae = empty_vae(json.loads(header["config"]))
            vae.load_state_dict(weights, assign=True)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise FilmstillError(f"{path}: does not hold the VAE of its header's config ({reason})") from None
        if not fast:
            return cls(vae)
        if not (small := _under("fast.", tensors)):
            raise FilmstillError(f"{path}: has no fast decoder; import it with TAEHV's weights (taew2_1.pth)")
        return cls(vae, make_taehv(small, vae.config.z_dim))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "WanVae":
        """Move and convert the networks in place; pixels and latents are returned in float32 in any case."""
        for network in (self.vae, self.fast):
            if network is not None:
                nn.Module.to(network, device, dtype)  # diffusers' own `to` warns about half precision
        self.mean, self.deviation = self.mean.to(device), self.deviation.to(device)
        return self

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape (f, C, h, w) of the latents of a video. Raises FilmstillError for sizes that are not divisible."""
        if frames < 1 or (frames - 1) % TIME_STRIDE:
            raise FilmstillError(f"frames: is {frames}, allowed: 1 + {TIME_STRIDE}k for Wan's VAE (1, 5, 9, …, 81)")
        for name, size in (("height", height), ("width", width)):
            if size < 1 or size % SPACE_STRIDE:
                raise FilmstillError(f"{name}: is {size}, allowed: multiples of {SPACE_STRIDE} for Wan's VAE")
        return 1 + (frames - 1) // TIME_STRIDE, self.channels, height // SPACE_STRIDE, width // SPACE_STRIDE

    @staticmethod
    def pixel_frames(latent_frames: int) -> int:
        """Number of pixel frames for `latent_frames` >= 1."""
        return 1 + TIME_STRIDE * (latent_frames - 1)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video [B, F, 3, H, W] in [0, 1] to latents [B, f, C, h, w], the posterior's mode, normalised.

        Raises FilmstillError for sizes that `latent_shape` refuses.
        """
        frames, _, height, width = video.shape[1:]
        self.latent_shape(frames, height, width)
        pixels = (video.to(self.mean) * 2 - 1).to(self.vae.dtype)
        latents = self.vae.encode(pixels.transpose(1, 2)).latent_dist.mode().transpose(1, 2)
        return (latents.float() - self.mean) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, f, C, h, w] to video [B, 1 + 4(f - 1), 3, 8h, 8w], clamped to [0, 1], float32."""
        return next(self.decode_stream(iter([latents])))

    @torch.no_grad()
    def decode_stream(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Decode blocks of latents lazily; concatenated, the videos equal `decode` of the concatenated latents."""
        if self.fast is not None:
            yield from self.fast.decode_stream(blocks)
            return
        features: dict[int, Any] = defaultdict(lambda: None)  # last input frames of each causal convolution
        for block in blocks:
            latents = (block.to(self.mean) * self.deviation + self.mean).to(self.vae.dtype).transpose(1, 2)
            pieces = [
                self.vae.decoder(self.vae.post_quant_conv(frame), feat_cache=features, feat_idx=[0])
                for frame in latents.split(1, dim=2)
            ]
            yield ((torch.cat(pieces, 2).transpose(1, 2).float() + 1) / 2).clamp(0, 1)


def empty_vae(config: dict[str, Any]) -> Any:
    """AutoencoderKLWan without weights, on device "meta", frozen, in evaluation mode."""
    from diffusers import AutoencoderKLWan  # takes seconds

    with torch.device("meta"):
        vae: Any = AutoencoderKLWan(**config)
    return vae.requires_grad_(False).eval()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
