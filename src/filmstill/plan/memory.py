"""Memory by part, in bytes: state of networks, activations saved for the backward pass, and working memory of a pass.

The terms follow models/dit.py tensor by tensor, as fused kernels keep them on a GPU. `size` is the number of bytes of a
number in `compute.precision`: 2 under autocast, else 4.
"""

from dataclasses import dataclass, fields

from filmstill.models.dit import DiTConfig
from filmstill.models.flops import Pass
from filmstill.models.parameter_counts import casted, exact, layer_casted, layer_matrices, parameters

FLOAT32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU in one phase of a stage."""

    weights: float = 0  # of frozen networks
    master: float = 0  # float32 weights of networks in training
    average: float = 0  # EMA of a network in training
    optimizer: float = 0  # state
    gradients: float = 0
    copies: float = 0  # of weights: autocast's, or layers gathered from other GPUs or from the host
    activations: float = 0
    kv_cache: float = 0
    text: float = 0  # keys and values of the prompts; while prompts are encoded, the encoder
    codec: float = 0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))


def frozen_bytes(config: DiTConfig, size: int) -> float:
    """Weights of a network that is frozen in `compute.precision`."""
    return float(size * casted(config) + FLOAT32 * exact(config))


def float32_bytes(config: DiTConfig) -> float:
    """Weights of a network in training, or their EMA, or their gradients."""
    return float(FLOAT32 * parameters(config))


def optimizer_bytes(config: DiTConfig, muon: bool) -> float:
    """Optimizer state in float32: AdamW's two moments per parameter; Muon has one for the layers' matrices."""
    one_moment = config.num_layers * layer_matrices(config) if muon else 0
    return float(FLOAT32 * (2 * parameters(config) - one_moment))


def cast_bytes(config: DiTConfig, size: int) -> float:
    """Autocast's copies of the weights during a pass; none in float32."""
    return float(size * casted(config)) if size < FLOAT32 else 0.0


def gathered_bytes(config: DiTConfig, size: int) -> float:
    """Gathered weights of a network that is gathered layer by layer: two layers, and all parameters outside them."""
    outside = parameters(config) - config.num_layers * layer_casted(config)
    return float(size * (2 * layer_casted(config) + outside))


def kv_cache_bytes(config: DiTConfig, batch: int, tokens: int, size: int) -> float:
    """Keys and values of all layers for `tokens` tokens per sample: a rollout's, or a prompt's."""
    return 2.0 * config.num_layers * config.dim * batch * tokens * size


def saved_bytes(config: DiTConfig, call: Pass, size: int, activation_checkpointing: bool) -> float:
    """Activations of layers (with checkpointing, only their inputs) and head, saved for the backward pass."""
    layer_input = FLOAT32 * config.dim * call.all_tokens
    layer = layer_input if activation_checkpointing else layer_saved_bytes(config, call, size)
    return float(config.num_layers * layer + 3 * layer_input)


def layer_saved_bytes(config: DiTConfig, call: Pass, size: int) -> float:
    """Activations that one layer saves for its backward pass, without checkpointing."""
    float32 = 7  # input and norm of both modulated halves, input of norm3, updates of both gates
    inputs = 3 if size == FLOAT32 else 5  # of projections: autocast casts that of q, k and v three times
    others = 7  # q and k before their norms, q after, the output; cross-attention's q before and after, its output
    tokens = call.all_tokens * config.dim * (FLOAT32 * float32 + size * (inputs + others))
    return float(tokens + size * (2 * call.all_keys * config.dim + 2 * call.all_tokens * config.ffn_dim))


def backward_bytes(config: DiTConfig, call: Pass, size: int, activation_checkpointing: bool) -> float:
    """Peak working memory of a backward pass, in a feed-forward; with checkpointing, with one layer recomputed."""
    recomputed = layer_saved_bytes(config, call, size) if activation_checkpointing else 0.0
    return recomputed + size * call.all_tokens * config.ffn_dim


def forward_bytes(config: DiTConfig, call: Pass, size: int) -> float:
    """Peak working memory of a pass without gradients: in a feed-forward, or in self-attention."""
    feed_forward = 3 * FLOAT32 * config.dim + 2 * size * config.ffn_dim
    attention = (2 * FLOAT32 + 6 * size) * config.dim
    return float(call.all_tokens * max(feed_forward, attention))
