"""The section `model` of params.yaml: the transformer's sizes."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key

MAX_WEIGHTS = 2e11  # 14 times Wan2.1 14B
PATCH = 2  # latents per token, each way


@dataclass
class Model:
    """Wan2.1's transformer at any size (names as in the released config.json)."""

    dim: int = key(128, "channels of a token", "[2, 65536]")
    ffn_dim: int = key(512, "channels of the feed-forward network", "[1, 262144]")
    num_heads: int = key(4, "number of attention heads", "[1, 1024]")
    num_layers: int = key(4, "number of transformer blocks", "[1, 1024]")
    freq_dim: int = key(64, "channels of the sinusoidal timestep embedding", "[2, 65536]")
    text_dim: int = key(64, "channels of the text encoder's token vectors", "[1, 65536]")
    text_len: int = key(16, "tokens that a prompt is padded or cut to", "[1, 65536]")
    in_channels: int = key(16, "latent channels of the codec", "[1, 4096]")

    def __post_init__(self) -> None:
        check_intervals(self)
        require(self.freq_dim % 2 == 0, "freq_dim", self.freq_dim, "an even number: half cosines, half sines")
        require(self.dim % self.num_heads == 0, "dim", self.dim, f"a multiple of num_heads ({self.num_heads})")
        head = self.dim // self.num_heads
        require(head % 2 == 0, "dim", self.dim, f"an even head size (dim / num_heads is {head})")
        weights = self.num_layers * self.dim * (8 * self.dim + 2 * self.ffn_dim)  # of the matrices of all layers
        allowed = f"fewer layers or channels: at most {MAX_WEIGHTS:.0e} weights (these are {weights:.0e})"
        require(weights <= MAX_WEIGHTS, "num_layers", self.num_layers, allowed)
