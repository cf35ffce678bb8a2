"""Numbers of parameters of VideoDiT, computed from its config."""

from filmstill.models.dit import DiTConfig
from filmstill.params.model import PATCH


def parameters(config: DiTConfig) -> int:
    """All parameters, including biases and norms."""
    return casted(config) + exact(config)


def exact(config: DiTConfig) -> int:
    """Parameters that stay float32 in any precision: time embedding and projection, head, norms and modulation."""
    dim = config.dim
    time = (config.freq_dim * dim + dim) + (dim**2 + dim) + (6 * dim**2 + 6 * dim)
    head = patch_size(config) * (dim + 1) + 2 * dim
    norms_and_modulation = 6 * dim + 6 * dim
    return time + head + config.num_layers * norms_and_modulation


def casted(config: DiTConfig) -> int:
    """Parameters of products computed in `precision`: `freeze` stores them so, and autocast casts them otherwise."""
    dim = config.dim
    patches = patch_size(config) * dim + dim
    text = (config.text_dim * dim + dim) + (dim**2 + dim)
    return patches + text + config.num_layers * layer_casted(config)


def layer_casted(config: DiTConfig) -> int:
    """`casted` of one layer: eight projections of two attentions and two feed-forward matrices, with biases."""
    dim, ffn = config.dim, config.ffn_dim
    return layer_matrices(config) + 8 * dim + ffn + dim


def layer_matrices(config: DiTConfig) -> int:
    """Elements of one layer's matrices, without biases."""
    return 8 * config.dim**2 + 2 * config.dim * config.ffn_dim


def patch_size(config: DiTConfig) -> int:
    """Latent values per token."""
    return PATCH**2 * config.in_channels
