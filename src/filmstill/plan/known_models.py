"""Sizes of the released models: networks, text encoder and codec.

The sizes of a release on disk are read from its files. Operations and memory of the VAE were counted on diffusers'
unmodified AutoencoderKLWan (FlopCounterMode; peak of live tensors); the tests count them again.
"""

from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.formats.layouts import read_network
from filmstill.formats.release import find_networks
from filmstill.models.dit import DiTConfig

WAN_1_3B = DiTConfig(1536, 8960, 12, 30, 256, 4096, 16)  # Wan-AI/Wan2.1-T2V-1.3B, config.json
WAN_14B = DiTConfig(5120, 13824, 40, 40, 256, 4096, 16)  # Wan-AI/Wan2.1-T2V-14B; Wan2.2's experts have its sizes
NETWORKS = {
    "Wan2.1-T2V-1.3B": [WAN_1_3B],
    "Wan2.1-T2V-14B": [WAN_14B],
    "Wan2.2-T2V-A14B": [WAN_14B, WAN_14B],
}


def released_networks(folder: str, key: str) -> list[DiTConfig]:
    """Sizes of a release's network or two experts; `key` is the parameter that names the folder.

    Raises FilmstillError for a folder that neither exists nor has the name of a known release.
    """
    path = Path(folder)
    if path.is_dir():
        return [read_network(network).config for network in find_networks(path)]
    if path.name in NETWORKS:
        return NETWORKS[path.name]
    known = ", ".join(NETWORKS)
    raise FilmstillError(f"{key}: is {folder!r}, allowed: a folder that exists, or one named like a release ({known})")


UMT5_DIM = 4096  # google/umt5-xxl, config.json: 24 layers of 64 heads of 64
_UMT5_LAYER = 4 * UMT5_DIM**2 + 3 * UMT5_DIM * 10240  # parameters in matrices
UMT5_PARAMETERS = 256384 * UMT5_DIM + 24 * (_UMT5_LAYER + 2 * UMT5_DIM + 32 * 64) + UMT5_DIM

VAE_PARAMETERS = 126_892_531
_VAE_FIRST, _VAE_LATER = 687_882_752, 2_161_889_792  # operations per latent of the first frame, and of later frames
_VAE_ATTENTION = 1536  # operations per pair of latents of one frame
_VAE_LIVE = 5050  # numbers alive per pixel at the decoder's peak


def vae_decode_flops(latent_shape: tuple[int, int, int, int]) -> float:
    """Operations to decode a clip's latents (F, C, H, W)."""
    frames, _, height, width = latent_shape
    latents = height * width
    convolutions = latents * (_VAE_FIRST + (frames - 1) * _VAE_LATER)
    return float(convolutions + frames * _VAE_ATTENTION * latents**2)


def vae_decode_bytes(batch: int, pixel_frames: int, height: int, width: int, size: int) -> float:
    """Memory for decoding one latent frame at a time beside the frames decoded so far, in numbers of `size` bytes.

    Counts tensors only, not cuDNN's workspace.
    """
    return float(batch * height * width * size * (_VAE_LIVE + 3 * pixel_frames))
