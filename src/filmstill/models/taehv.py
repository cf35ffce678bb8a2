"""TAEHV for Wan2.1: a small decoder in place of the VAE's, many times faster and slightly less sharp.

Parameter names are those of taew2_1.pth. All convolutions are 2D; a block sees the past through a memory, its input
of the frame before. Input latents are normalised, as the transformer outputs them. Decoding proceeds by latent frame
and carries the memories on, so a stream equals the decoding of the whole clip in constant memory.

Source: github.com/madebyollin/taehv.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (256, 128, 64, 64)  # channels in taew2_1.pth before, between and after the upsamplings
GROWTH = (1, 2, 2)  # output frames per frame at each upsampling
TRIM = 3  # frames decoded from the first latent frame that precede the clip


class Clamp(nn.Module):
    """Soft clamp to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """Residual block on frame x and the block's input for the frame before, `past`; both [N, width, h, w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return F.relu(self.conv(torch.cat([x, past], 1)) + x)


class TGrow(nn.Module):
    """Replaces each frame [N, width, h, w] by `times` frames [N * times, width, h, w]."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(-1, *x.shape[1:])


class Taehv(nn.Module):
    """Decoder of normalised latents with `channels` channels."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [Clamp(), _conv(channels, widths[0]), nn.ReLU()]
        for width, following, times in zip(widths[:-1], widths[1:], GROWTH, strict=True):
            layers += [MemBlock(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2), TGrow(width, times), _conv(width, following, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), _conv(widths[-1], 3))

    @torch.no_grad()
    def decode_stream(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Decode blocks of latents [B, f, C, h, w] to video [B, F, 3, 8h, 8w] in [0, 1], float32, one item per block.

        The first latent frame of the stream gives one frame, every later one four.
        """
        memory: dict[int, Tensor] = {}
        for block in blocks:
            trim = 0 if memory else TRIM
            latents = block.to(next(self.parameters())).unbind(1)
            frames = torch.cat([self._decode_one(latent, memory) for latent in latents], 1)
            yield frames[:, trim:].float().clamp(0, 1)

    def _decode_one(self, x: Tensor, memory: dict[int, Tensor]) -> Tensor:
        """Decode one latent frame [B, C, h, w] to four frames [B, 4, 3, 8h, 8w].

        memory: last input [B, 1, width, h, w] of each memory block by layer; updated in place.
        """
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
    """The decoder with the tensors that `read_taehv` returned, float32, frozen, in evaluation mode."""
    network = empty_taehv(channels, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return network.requires_grad_(False).eval()


def empty_taehv(channels: int, shapes: Mapping[str, tuple[int, ...]]) -> Taehv:
    """A network on device "meta" whose widths are read from the shapes of its convolutions; WIDTHS for missing ones."""
    ends = [f"decoder.{n}.weight" for n in (1, 8, 14, 20)]
    widths = tuple(shapes.get(name, (released,))[0] for name, released in zip(ends, WIDTHS, strict=True))
    with torch.device("meta"):
        return Taehv(channels, widths)


def _conv(width: int, out: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(width, out, 3, padding=1, bias=bias)
