"""The section `model` of params.yaml: the transformer's sizes."""

from dataclasses import dataclass

from filmstill.errors import require

PATCH = 2  # latents per token, each way


@dataclass
class Model:
    """Wan2.1's transformer at any size (names as in the released config.json)."""

    dim: int = 128
    ffn_dim: int = 512
    num_heads: int = 4
    num_layers: int = 4
    freq_dim: int = 64  # channels of the sinusoidal timestep embedding
    text_dim: int = 64
    text_len: int = 16  # tokens a prompt is padded or cut to
    in_channels: int = 16  # latent channels: the codec's

    def __post_init__(self) -> None:
        for name in ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim", "text_len", "in_channels"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        require(self.freq_dim % 2 == 0, "freq_dim", self.freq_dim, "an even number: half cosines, half sines")
        require(self.dim % self.num_heads == 0, "dim", self.dim, f"a multiple of num_heads ({self.num_heads})")
        head = self.dim // self.num_heads
        require(head % 2 == 0, "dim", self.dim, f"an even head size (dim / num_heads is {head})")
