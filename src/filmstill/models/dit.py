"""VideoDiT: Wan2.1's video transformer at any size, one class.

Notable: parameter names are the released checkpoints'; bidirectional, block-causal, teacher-forcing and KV-cached
attention are arguments of `forward`; timesteps may differ from frame to frame; rotary tables and masks are made once
a shape; the prompt's keys and values are made once (`read_text`) and serve every step of a sampler or rollout;
`precision` is what matrix products are computed in; timesteps, the sum of residuals and the head stay float32.

Source: Wan2.1 technical report (arXiv:2503.20314) and its `wan/modules/model.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstill.models.attention import BlockCausal, FrameMask, attend, frame_mask
from filmstill.models.kv_cache import KVCache
from filmstill.models.rope import rope_table, rotate
from filmstill.params.model import PATCH

EPS = 1e-6

TextKV = list[tuple[Tensor, Tensor]]  # a layer's keys and values of the prompt, [B, text_len, heads, head_dim]


@dataclass(frozen=True)
class DiTConfig:
    """Sizes, named as in the released config.json."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    freq_dim: int
    text_dim: int
    in_channels: int


class RMSNorm(nn.RMSNorm):
    """In the dtype of what it norms (summed in float32): queries and keys stay what the cache and attention hold."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # CUDA's would give float32
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def is_exact(name: str) -> bool:
    """Whether a parameter of the network is float32 in any precision: what a timestep becomes, norms, the velocity."""
    return name.startswith(("time_", "head.")) or "norm" in name or "modulation" in name


class PatchEmbedding(nn.Conv3d):
    """Latents [B, F, C, H, W] to tokens [B, L, dim], as one matrix product: the convolution's stride is its kernel."""

    def forward(self, x: Tensor) -> Tensor:
        patches = rearrange(x, "b f c (h p) (w q) -> b (f h w) (c p q)", p=PATCH, q=PATCH)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class SelfAttention(nn.Module):
    """Attention among video tokens, with rotary positions and RMS-normed queries and keys."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, EPS), RMSNorm(dim, EPS)

    def forward(
        self, x: Tensor, rope: Tensor, mask: FrameMask | None, context: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, L, dim] to (output [B, L, dim], this call's own keys and values [B, L, heads, head_dim])."""
        q = rotate(self.norm_q(self.q(x)).unflatten(-1, (self.num_heads, -1)), rope)
        k, v = keys, values = self.read(x, rope)
        if context is not None:
            keys, values = torch.cat([context[0], k], 1), torch.cat([context[1], v], 1)
        return self.o(attend(q, keys, values, mask)), (k, v)

    def read(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, L, heads, head_dim] of x [B, L, dim]."""
        heads = (self.num_heads, -1)
        return rotate(self.norm_k(self.k(x)).unflatten(-1, heads), rope), self.v(x).unflatten(-1, heads)


class CrossAttention(nn.Module):
    """Attention from video tokens to the prompt."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, EPS), RMSNorm(dim, EPS)

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, text_len, heads, head_dim] of embedded text [B, text_len, dim]."""
        heads = (self.num_heads, -1)
        return self.norm_k(self.k(text)).unflatten(-1, heads), self.v(text).unflatten(-1, heads)

    def forward(self, x: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        q = self.norm_q(self.q(x)).unflatten(-1, (self.num_heads, -1))
        return self.o(attend(q, *text))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and last modulated by the timestep (adaLN)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.self_attn = SelfAttention(dim, config.num_heads)
        self.cross_attn = CrossAttention(dim, config.num_heads)
        self.norm3 = nn.LayerNorm(dim, EPS)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, dim))
        # Bounds as nn.Linear's. Arithmetic here would import torch's compiler for a second when made on "meta".
        self.modulation = nn.Parameter(torch.empty(1, 6, dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: tuple[Tensor, Tensor],
        rope: Tensor,
        mask: FrameMask | None,
        context: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, L, dim], modulation [B, F or 1, 6, dim] to (x, this layer's own keys and values)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).unbind(2)
        attended, own = self.self_attn(_modulate(x, shift1, scale1), rope, mask, context)
        x = _gated(x, attended, gate1)
        x = x + self.cross_attn(self.norm3(x), text)
        x = _gated(x, self.ffn(_modulate(x, shift2, scale2)), gate2)
        return x, own

    def read_text(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, text_len, heads, head_dim] of embedded text [B, text_len, dim]."""
        return self.cross_attn.read(text)

    def read(self, x: Tensor, modulation: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values that `forward` would give, alone."""
        shift, scale = (self.modulation + modulation).unbind(2)[:2]
        return self.self_attn.read(_modulate(x, shift, scale), rope)


class Head(nn.Module):
    """Tokens to patches, modulated by the timestep."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.empty(1, 2, dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.modulation + time[:, :, None]).unbind(2)
        with torch.autocast(x.device.type, enabled=False):  # what it says is the velocity itself
            return self.head(_modulate(x.to(self.head.weight.dtype), shift, scale))


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _in_precision(
    method: "Callable[Concatenate[VideoDiT, Tensor, Arguments], Result]",
) -> "Callable[Concatenate[VideoDiT, Tensor, Arguments], Result]":
    """Run a method of VideoDiT under autocast when the network has a `precision` below float32."""

    @wraps(method)
    def run(self: "VideoDiT", x: Tensor, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if self.precision == torch.float32:
            return method(self, x, *args, **kwargs)
        with torch.autocast(x.device.type, self.precision):
            return method(self, x, *args, **kwargs)

    return run


class VideoDiT(nn.Module):
    """Predicts the velocity (noise - x0) of noisy latents.

    `precision`: dtype of matrix products and attention. `activation_checkpointing`: a layer's activations are computed
    again in the backward pass instead of kept.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.precision = torch.float32
        self.activation_checkpointing = False
        dim = config.dim
        self.patch_embedding = PatchEmbedding(config.in_channels, dim, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(dim, PATCH * PATCH * config.in_channels)

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    def freeze(self) -> None:
        """No gradients, and matrices kept in `precision` itself instead of cast at every call; the rest in float32,
        whatever the file had."""
        self.requires_grad_(False).eval()
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if is_exact(name) else self.precision)

    @property
    def layers(self) -> list[Block]:
        """The blocks, typed."""
        return list(self.blocks)  # type: ignore[arg-type]

    @_in_precision
    def read_text(self, text: Tensor) -> TextKV:
        """Every layer's keys and values of token vectors [B, text_len, text_dim]; zero rows count too (Wan2.1)."""
        embedded = self.text_embedding(text)
        return [block.read_text(embedded) for block in self.layers]

    @_in_precision
    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: TextKV,
        attention: BlockCausal | None = None,
        cache: KVCache | None = None,
        clean: Tensor | None = None,
        clean_t: Tensor | None = None,
    ) -> Tensor:
        """Velocity [B, F, C, H, W] of latents x [B, F, C, H, W] at timesteps t [B] or [B, F] in [0, 1000].

        attention: block-causal over this whole sequence; None: every frame sees every frame.
        cache: the sequence continues the cache's, which is only read.
        clean: teacher forcing under `attention`: the same frames as x, finished [B, F, C, H, W]; a block of x sees the
        blocks before it there. clean_t [B, F]: the timesteps of their noise, if they have some.
        """
        frames, rows, columns = x.shape[1], x.shape[3] // PATCH, x.shape[4] // PATCH
        tokens, time, modulation, rope = self._embed(x, t, cache)
        if clean is not None:
            clean_t = torch.zeros(clean.shape[:2], device=x.device) if clean_t is None else clean_t
            clean_tokens, _, clean_modulation, _ = self._embed(clean, clean_t, None)
            tokens, rope = torch.cat([clean_tokens, tokens], 1), torch.cat([rope, rope])
            modulation = torch.cat([clean_modulation, modulation.expand(-1, frames, -1, -1)], 1)
        mask = frame_mask(attention, frames, rows * columns, clean is not None, x.device) if attention else None
        run = _again_in_backward if self.activation_checkpointing and torch.is_grad_enabled() else _at_once
        for layer, (block, layer_text) in enumerate(zip(self.layers, text, strict=True)):
            context = cache.context(layer, frames) if cache else None
            tokens = run(block, tokens, modulation, layer_text, rope, mask, context)[0]
        patches = self.head(tokens[:, -frames * rows * columns :], time)
        shape = {"f": frames, "h": rows, "w": columns, "p": PATCH, "q": PATCH}
        return rearrange(patches, "b (f h w) (p q c) -> b f c (h p) (w q)", **shape).to(x.dtype)

    @_in_precision
    def remember(self, x: Tensor, t: Tensor, text: TextKV, cache: KVCache) -> None:
        """Put latents x at timesteps t (as in `forward`) into the cache: all but the last layer, and its keys."""
        frames = x.shape[1]
        tokens, _, modulation, rope = self._embed(x, t, cache)
        own = []
        *first_layers, last = self.layers
        for layer, block in enumerate(first_layers):
            tokens, keys_values = block(tokens, modulation, text[layer], rope, None, cache.context(layer, frames))
            own.append(keys_values)
        cache.commit([*own, last.read(tokens, modulation, rope)], frames)

    def _embed(self, x: Tensor, t: Tensor, cache: KVCache | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(tokens [B, L, dim], time, modulation, rotary table) of latents that continue the cache's."""
        _, frames, _, height, width = x.shape
        head_dim, first = self.config.dim // self.config.num_heads, cache.frames if cache else 0
        rope = rope_table(head_dim, first, frames, height // PATCH, width // PATCH, x.device)
        return self.patch_embedding(x), *self._embed_time(t.to(x.device)), rope

    def _embed_time(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t [B] or [B, F] to (time [B, F or 1, dim], modulation [B, F or 1, 6, dim]), float32 in any precision."""
        waves = sinusoid(t if t.ndim == 2 else t[:, None], self.config.freq_dim)
        with torch.autocast(t.device.type, enabled=False):
            time = self.time_embedding(waves.to(self.head.head.weight.dtype))
            return time, self.time_projection(time).unflatten(-1, (6, -1))


def _at_once(block: Block, *given: Any) -> Any:
    return block(*given)


def _again_in_backward(block: Block, *given: Any) -> Any:
    """No layer draws random numbers, so their state need not be kept."""
    return checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """[..., dim] float64: cosines, then sines, of t over log-spaced wavelengths."""
    half = dim // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angle = t.double()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of x [B, L, dim], then scale and shift [B, F or 1, dim] of the token's frame."""
    normed = F.layer_norm(x, x.shape[-1:], eps=EPS).unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], normed, 1 + scale[:, :, None]).flatten(1, 2)


def _gated(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    frames = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, frames), update.unflatten(1, frames), gate[:, :, None]).flatten(1, 2)
