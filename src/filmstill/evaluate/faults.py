"""Faults that dimensions must respond to. Each function maps video [B, F, 3, H, W] in [0, 1] to the same shape."""

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.runtime.randomness import generator


def blur(video: Tensor) -> Tensor:
    """A 5x5 box blur of every frame."""
    return F.avg_pool2d(video.flatten(0, 1), 5, stride=1, padding=2, count_include_pad=False).view(video.shape)


def freeze(video: Tensor) -> Tensor:
    """The first frame, repeated."""
    return video[:, :1].expand_as(video).clone()


def flicker(video: Tensor) -> Tensor:
    """Every other frame at half brightness."""
    dim = torch.ones(video.shape[1])
    dim[1::2] = 0.5
    return video * dim[:, None, None, None]


def drift(video: Tensor) -> Tensor:
    """The symbol dissolves into the next clip's symbol over time."""
    share = torch.linspace(0, 1, video.shape[1])[:, None, None, None]
    return (1 - share) * video + share * video.roll(1, dims=0)


def wrong_colour(video: Tensor) -> Tensor:
    """Red, green and blue are exchanged."""
    return video.roll(1, dims=2)


def discolour(video: Tensor) -> Tensor:
    """The symbol changes to the wrong colour over time."""
    share = torch.linspace(0, 1, video.shape[1])[:, None, None, None]
    return (1 - share) * video + share * wrong_colour(video)


def noise(video: Tensor) -> Tensor:
    """Grain over the whole picture."""
    dice = generator(0, "fault/noise")
    return (video + 0.15 * torch.randn(video.shape, generator=dice)).clamp(0, 1)


def jitter(video: Tensor) -> Tensor:
    """Every other frame is shifted by three pixels, towards the middle so that the symbol stays in the picture."""
    columns = torch.arange(video.shape[-1]) - (video.shape[-1] - 1) / 2
    on_the_right = ((video.sum(dim=(2, 3)) * columns).sum(dim=-1) > 0)[..., None, None, None]
    shifted = torch.where(on_the_right, video.roll(-3, dims=-1), video.roll(3, dims=-1))
    shifted[:, ::2] = video[:, ::2]
    return shifted
