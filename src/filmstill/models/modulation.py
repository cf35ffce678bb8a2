"""Modulation of tokens by the timestep: adaptive layer norm and gates (DiT, arXiv:2212.09748)."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of x [B, L, dim], then scale and shift [B, F or 1, dim] by the token's frame."""
    normed = F.layer_norm(x, x.shape[-1:], eps=EPS).unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], normed, 1 + scale[:, :, None]).flatten(1, 2)


def gated(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + gate * update for x and update [B, L, dim], gate [B, F or 1, dim] of the token's frame."""
    frames = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, frames), update.unflatten(1, frames), gate[:, :, None]).flatten(1, 2)
