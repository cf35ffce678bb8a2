"""Memory by part, in bytes: what networks keep, what a pass leaves for its backward pass, what it works in.

Notable: terms follow the code of models/dit.py tensor by tensor, as its fused kernels keep them on a GPU; `size` is the
bytes of a number in `compute.precision`: 2 under autocast, or 4.
"""

from dataclasses import dataclass, fields

from filmstill.models.dit import DiTConfig
from filmstill.models.flops import Pass
from filmstill.models.parameter_counts import casted, exact, layer_casted, layer_matrices, parameters

FLOAT32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at one moment."""

    weights: float = 0  # of frozen networks
    master: float = 0  # float32 weights of networks in training
    average: float = 0  # their exponential moving average
    optimizer: float = 0
    gradients: float = 0
    copies: float = 0  # of weights: autocast's, or the layers gathered from other places
    activations: float = 0
    kv_cache: float = 0
    text: float = 0  # the prompts' keys and values; where prompts are encoded, the encoder
    codec: float = 0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))


def frozen_bytes(config: DiTConfig, size: int) -> float:
    """Weights of a network that was frozen in `precision`."""
    return float(size * casted(config) + FLOAT32 * exact(config))


def float32_bytes(config: DiTConfig) -> float:
    """Weights in training, their average or their gradients."""
    return float(FLOAT32 * parameters(config))


def optimizer_bytes(config: DiTConfig, muon: bool) -> float:
    """AdamW's two moments of every parameter; Muon has one of the layers' matrices. float32."""
    saved = config.num_layers * layer_matrices(config) if muon else 0
    return float(FLOAT32 * (2 * parameters(config) - saved))


def cast_bytes(config: DiTConfig, size: int) -> float:
    """Autocast's copies of the weights during a pass; float32 needs none."""
    return float(size * casted(config)) if size < FLOAT32 else 0.0


def gathered_bytes(config: DiTConfig, size: int) -> float:
    """Of a network that comes a layer at a time: the layer at work, the next one, and what is outside the layers."""
    outside = parameters(config) - config.num_layers * layer_casted(config)
    return float(size * (2 * layer_casted(config) + outside))


def kv_cache_bytes(config: DiTConfig, batch: int, tokens: int, size: int) -> float:
    """Every layer's keys and values of so many tokens a sample: a stream's context, or a prompt."""
    return 2.0 * config.num_layers * config.dim * batch * tokens * size


def held_bytes(config: DiTConfig, call: Pass, size: int, activation_checkpointing: bool) -> float:
    """What a forward pass leaves for its backward pass: every layer's, or with checkpointing its input; the head's."""
    layer = FLOAT32 * config.dim * call.all_tokens if activation_checkpointing else kept_bytes(config, call, size)
    return float(config.num_layers * layer + 3 * FLOAT32 * config.dim * call.all_tokens)


def kept_bytes(config: DiTConfig, call: Pass, size: int) -> float:
    """What one layer keeps for its backward pass."""
    exactly = 7  # in float32: input and norm of both modulated halves, input of norm3, updates of both gates
    inputs = 3 if size == FLOAT32 else 5  # of projections: autocast casts that of q, k and v thrice
    others = 7  # q and k before their norms, q after, the output; cross-attention's q before and after, its output
    tokens = call.all_tokens * config.dim * (FLOAT32 * exactly + size * (inputs + others))
    return float(tokens + size * (2 * call.all_keys * config.dim + 2 * call.all_tokens * config.ffn_dim))


def backward_bytes(config: DiTConfig, call: Pass, size: int, activation_checkpointing: bool) -> float:
    """What a backward pass works in at its fullest, in the feed-forward; with checkpointing a layer is made anew."""
    again = kept_bytes(config, call, size) if activation_checkpointing else 0.0
    return again + size * call.all_tokens * config.ffn_dim


def forward_bytes(config: DiTConfig, call: Pass, size: int) -> float:
    """What a pass without gradients works in at its fullest: in the feed-forward, or where the cache is joined."""
    feed_forward = (3 * FLOAT32 + 3 * size) * config.dim + 2 * size * config.ffn_dim
    attention = (2 * FLOAT32 + 4 * size + 2 * size * call.keys / call.tokens) * config.dim
    return float(call.all_tokens * max(feed_forward, attention))
