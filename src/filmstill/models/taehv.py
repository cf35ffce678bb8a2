"""TAEHV for Wan2.1: a small decoder that stands in for the VAE's, many times faster and a little less sharp.

Notable: parameter names are those of taew2_1.pth; plain 2D convolutions, time enters by a block's memory, its own
input one frame earlier; latents go in as the transformer makes them, normalised; decoding goes latent frame by
latent frame with the memories carried on, so a stream gives the frames of the whole and needs the same memory
however long it is.

Source: github.com/madebyollin/taehv.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (256, 128, 64, 64)  # of taew2_1.pth: before, between and after the upsamplings
GROWTH = (1, 2, 2)  # frames for one, at each upsampling
TRIM = 3  # frames of the first latent frame that lie before the clip


class Clamp(nn.Module):
    """Softly to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """A residual block that also sees its input of the frame before; both [N, width, h, w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return F.relu(self.conv(torch.cat([x, past], 1)) + x)


class TGrow(nn.Module):
    """Each frame [N, width, h, w] to `times` frames in its place."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(-1, *x.shape[1:])


class Taehv(nn.Module):
    """Decodes normalised latents of `channels` channels."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [Clamp(), _conv(channels, widths[0]), nn.ReLU()]
        for width, following, times in zip(widths[:-1], widths[1:], GROWTH, strict=True):
            layers += [MemBlock(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2), TGrow(width, times), _conv(width, following, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), _conv(widths[-1], 3))

    @torch.no_grad()
    def decode_stream(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Blocks of latents [B, f, C, h, w] to the frames they add [B, F, 3, 8h, 8w] in [0, 1], float32.

        The first latent frame of the stream adds one frame, every later one four.
        """
        memory: dict[int, Tensor] = {}
        for block in blocks:
            trim = 0 if memory else TRIM
            latents = block.to(next(self.parameters())).unbind(1)
            frames = torch.cat([self._decode_one(latent, memory) for latent in latents], 1)
            yield frames[:, trim:].float().clamp(0, 1)

    def _decode_one(self, x: Tensor, memory: dict[int, Tensor]) -> Tensor:
        """One latent frame [B, C, h, w] to four frames [B, 4, 3, 8h, 8w]; `memory` by layer, [B, 1, width, h, w]."""
        batch = len(x)
        for index, layer in enumerate(self.decoder):
            if isinstance(layer, MemBlock):
                frames = x.unflatten(0, (batch, -1))
                before = memory.get(index, torch.zeros_like(frames[:, :1]))
                memory[index] = frames[:, -1:]
                x = layer(x, torch.cat([before, frames[:, :-1]], 1).flatten(0, 1))
            else:
                x = layer(x)
        return x.unflatten(0, (batch, -1))


def make_taehv(tensors: Mapping[str, Tensor], channels: int) -> Taehv:
    """The decoder, float32 and in evaluation mode, of the tensors that `read_taehv` gave."""
    network = empty_taehv(channels, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return network.requires_grad_(False).eval()


def empty_taehv(channels: int, shapes: Mapping[str, tuple[int, ...]]) -> Taehv:
    """A network without weights, of the widths that the convolutions after each stage have, else of the released."""
    ends = [f"decoder.{n}.weight" for n in (1, 8, 14, 20)]
    widths = tuple(shapes.get(name, (released,))[0] for name, released in zip(ends, WIDTHS, strict=True))
    with torch.device("meta"):
        return Taehv(channels, widths)


def _conv(width: int, out: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(width, out, 3, padding=1, bias=bias)
