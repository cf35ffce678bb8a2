"""The first frame of a loss window inside a stream, as the codec encodes an image.

A codec whose first latent frame is an image (Wan's VAE) gives a clip's first latent another meaning than the ones in
mid-stream, and the teacher knows clips only. So the stream is decoded up to the window's first frame, whose last pixel
frame is encoded as an image in its place (the released Self Forcing code, for rollouts longer than 21 frames; LongLive,
arXiv:2509.22622). It carries no gradient, and no frame of its block counts for a loss.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from filmstill.models.codec import Codec


@torch.no_grad()
def encoded_as_image(codec: Codec, blocks: Iterable[Tensor]) -> Tensor:
    """Latents [B, 1, C, H, W] of the last pixel frame of a stream, given in blocks [B, F, C, H, W] of latents."""
    last = None
    for video in codec.decode_stream(iter(blocks)):
        last = video[:, -1:]
    assert last is not None, "a stream has a block"
    return codec.encode(last)
