"""The section `model` of params.yaml: the transformer's sizes."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key

PATCH = 2  # latents per token, each way


@dataclass
class Model:
    """Wan2.1's transformer at any size (names as in the released config.json)."""

    dim: int = key(128, "channels of a token")
    ffn_dim: int = key(512, "channels of the feed-forward network")
    num_heads: int = key(4, "number of attention heads")
    num_layers: int = key(4, "number of transformer blocks")
    freq_dim: int = key(64, "channels of the sinusoidal timestep embedding")
    text_dim: int = key(64, "channels of the text encoder's token vectors")
    text_len: int = key(16, "tokens that a prompt is padded or cut to")
    in_channels: int = key(16, "latent channels of the codec")

    def __post_init__(self) -> None:
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim", "text_len", "in_channels"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        require(self.freq_dim % 2 == 0, "freq_dim", self.freq_dim, "an even number: half cosines, half sines")
        require(self.dim % self.num_heads == 0, "dim", self.dim, f"a multiple of num_heads ({self.num_heads})")
        head = self.dim // self.num_heads
        require(head % 2 == 0, "dim", self.dim, f"an even head size (dim / num_heads is {head})")
