"""VideoDiT: Wan2.1's video transformer at any size.

Parameter names are those of the released checkpoints. Bidirectional, block-causal, teacher-forcing and KV-cached
attention are arguments of `forward`. Timesteps may differ between frames. The prompt's keys and values are computed
once (`read_text`) for all steps of a sampler or rollout. Matrix products are computed in `precision`; timestep
embeddings, the residual stream and the head stay float32.

Source: Wan2.1 technical report (arXiv:2503.20314) and its `wan/modules/model.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstill.models.attention import BlockCausal, FrameMask, attend, frame_mask
from filmstill.models.kv_cache import KeysValues, KVCache, Slots
from filmstill.models.modulation import EPS, gated, modulate
from filmstill.models.prompts_by_frame import Spans, TextByFrame, TextKV, check_batch
from filmstill.models.rope import rope_table, rotate, timestep_embedding
from filmstill.params.model import PATCH

Join = Callable[[KeysValues], KeysValues]  # adds what a KV cache contains to a block's own keys and values


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the network, named as in the released config.json."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    freq_dim: int
    text_dim: int
    in_channels: int


class RMSNorm(nn.RMSNorm):
    """RMS norm in the dtype of its input, so that queries and keys keep the dtype of attention and KV cache."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # on CUDA, autocast would return float32
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def is_exact(name: str) -> bool:
    """Whether a parameter stays float32 in any precision: those of timestep embedding, modulation, norms and head."""
    return name.startswith(("time_", "head.")) or "norm" in name or "modulation" in name


class PatchEmbedding(nn.Conv3d):
    """Latents [B, F, C, H, W] to tokens [B, L, dim] by one matrix product: the stride equals the kernel size."""

    def forward(self, x: Tensor) -> Tensor:
        patches = rearrange(x, "b f c (h p) (w q) -> b (f h w) (c p q)", p=PATCH, q=PATCH)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class SelfAttention(nn.Module):
    """Self-attention of video tokens with RMS-normed queries and keys and rotary embedding (arXiv:2104.09864)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, EPS), RMSNorm(dim, EPS)

    def forward(self, x: Tensor, rope: Tensor, mask: FrameMask | None, join: Join | None) -> Tensor:
        """x [B, L, dim] to [B, L, dim]. join: adds cached keys and values of the frames before x to its own."""
        q = rotate(_by_head(self.norm_q(self.q(x)), self.num_heads), rope)
        own = self.read(x, rope)
        return self.o(attend(q, *(own if join is None else join(own)), mask))

    def read(self, x: Tensor, rope: Tensor) -> KeysValues:
        """Keys and values [B, heads, L, head_dim] of x [B, L, dim]."""
        keys = rotate(_by_head(self.norm_k(self.k(x)), self.num_heads), rope)
        return keys, _by_head(self.v(x), self.num_heads)


def _by_head(x: Tensor, num_heads: int) -> Tensor:
    """Tokens [B, L, dim] as [B, heads, L, head_dim]."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Cross-attention from video tokens to the prompt."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, EPS), RMSNorm(dim, EPS)

    def read(self, text: Tensor) -> KeysValues:
        """Keys and values [B, heads, text_len, head_dim] of embedded text [B, text_len, dim]."""
        return _by_head(self.norm_k(self.k(text)), self.num_heads), _by_head(self.v(text), self.num_heads)

    def forward(self, x: Tensor, text: Spans) -> Tensor:
        """x [B, L, dim] and the prompts' keys and values, each of its span of tokens, to [B, L, dim]."""
        q = _by_head(self.norm_q(self.q(x)), self.num_heads)
        seen = [attend(q[:, :, start:end], *prompt) for start, end, prompt in text]
        return self.o(seen[0] if len(seen) == 1 else torch.cat(seen, dim=1))


class Block(nn.Module):
    """One layer: self-attention, cross-attention, feed-forward. The timestep modulates the first and last (adaLN)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.self_attn = SelfAttention(dim, config.num_heads)
        self.cross_attn = CrossAttention(dim, config.num_heads)
        self.norm3 = nn.LayerNorm(dim, EPS)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, dim))
        # Same bounds as nn.Linear. Tensor arithmetic here would import torch's compiler (one second) on "meta".
        self.modulation = nn.Parameter(torch.empty(1, 6, dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: Spans,
        rope: Tensor,
        mask: FrameMask | None,
        join: Join | None,
    ) -> Tensor:
        """x [B, L, dim], modulation [B, F or 1, 6, dim] and every span's prompt to [B, L, dim]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).unbind(2)
        x = gated(x, self.self_attn(modulate(x, shift1, scale1), rope, mask, join), gate1)
        x = x + self.cross_attn(self.norm3(x), text)
        return gated(x, self.ffn(modulate(x, shift2, scale2)), gate2)

    def read_text(self, text: Tensor) -> KeysValues:
        """Keys and values [B, heads, text_len, head_dim] of embedded text [B, text_len, dim]."""
        return self.cross_attn.read(text)

    def read(self, x: Tensor, modulation: Tensor, rope: Tensor) -> KeysValues:
        """Only this layer's self-attention keys and values of x, [B, heads, L, head_dim]."""
        shift, scale = (self.modulation + modulation).unbind(2)[:2]
        return self.self_attn.read(modulate(x, shift, scale), rope)


class Head(nn.Module):
    """Tokens [B, L, dim] to velocity patches [B, L, out_features], modulated by the timestep."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.empty(1, 2, dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.modulation + time[:, :, None]).unbind(2)
        with torch.autocast(x.device.type, enabled=False):  # float32, since the output is the velocity
            return self.head(modulate(x.to(self.head.weight.dtype), shift, scale))


Method = TypeVar("Method", bound=Callable[..., Any])


def _in_precision(method: Method) -> Method:
    """Run a method of VideoDiT under autocast if the network's `precision` is below float32."""

    @wraps(method)
    def run(self: "VideoDiT", x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.precision == torch.float32:
            return method(self, x, *args, **kwargs)
        with torch.autocast(x.device.type, self.precision):
            return method(self, x, *args, **kwargs)

    return cast(Method, run)


class VideoDiT(nn.Module):
    """Predicts the velocity (noise - x0) of noisy latents.

    precision: dtype of matrix products and attention. activation_checkpointing: recompute each layer's activations in
    the backward pass instead of keeping them.
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
        """Disable gradients; store parameters of matrix products in `precision`, all others in float32 (`is_exact`)."""
        self.requires_grad_(False).eval()
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if is_exact(name) else self.precision)

    @property
    def layers(self) -> list[Block]:
        """`blocks` as a typed list."""
        return list(self.blocks)  # type: ignore[arg-type]

    @_in_precision
    def read_text(self, text: Tensor) -> TextKV:
        """Every layer's keys and values of token vectors [B, text_len, text_dim]; padding is not masked (Wan2.1)."""
        embedded = self.text_embedding(text)
        return [block.read_text(embedded) for block in self.layers]

    @_in_precision
    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: TextKV | TextByFrame,
        attention: BlockCausal | None = None,
        cache: KVCache | None = None,
        clean: Tensor | None = None,
        clean_t: Tensor | None = None,
    ) -> Tensor:
        """Velocity [B, F, C, H, W] of latents x [B, F, C, H, W] at timesteps t [B] or [B, F] in [0, 1000].

        text: the prompts, or those of every frame. attention: block-causal attention over this whole sequence; None:
        every frame sees every frame.
        cache: the frames of x follow those in the KV cache; without a gradient it also has room for theirs meanwhile.
        clean: for teacher forcing under `attention`, the finished frames [B, F, C, H, W] of x, in which each block of x
        sees the blocks before it. clean_t [B, F]: timesteps of `clean` if it is noised.
        Raises ValueError for timesteps of another shape and for a `text` of another batch size.
        """
        check_batch(x, text)
        frames, rows, columns = x.shape[1], x.shape[3] // PATCH, x.shape[4] // PATCH
        tokens, time, modulation, rope = self._embed(x, t, cache)
        if clean is not None:
            clean_t = torch.zeros(clean.shape[:2], device=x.device) if clean_t is None else clean_t
            clean_tokens, _, clean_modulation, _ = self._embed(clean, clean_t, None)
            tokens, rope = torch.cat([clean_tokens, tokens], 1), torch.cat([rope, rope])
            modulation = torch.cat([clean_modulation, modulation.expand(-1, frames, -1, -1)], 1)
        mask = frame_mask(attention, frames, rows * columns, clean is not None, x.device) if attention else None
        joins = self._joins(cache, cache.slots(frames)) if cache else [None] * len(self.layers)
        by_frame = text if isinstance(text, TextByFrame) else TextByFrame((0,), (text,))
        for number, (block, join) in enumerate(zip(self.layers, joins, strict=True)):
            spans = by_frame.spans(number, frames, rows * columns, 1 if clean is None else 2)
            tokens = self._run(block, tokens, modulation, spans, rope, mask, join)
        patches = self.head(tokens[:, -frames * rows * columns :], time)
        shape = {"f": frames, "h": rows, "w": columns, "p": PATCH, "q": PATCH}
        return rearrange(patches, "b (f h w) (p q c) -> b f c (h p) (w q)", **shape).to(x.dtype)

    def _run(self, block: Block, *inputs: Any) -> Any:
        if self.activation_checkpointing and torch.is_grad_enabled():  # layers draw no random numbers to replay
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)

    def _joins(self, cache: KVCache, slots: Slots) -> list[Join]:
        """Per layer, what adds the cache to a block, the same in a backward pass, when the cache has moved on."""
        return [partial(cache.join, layer, slots) for layer in range(len(self.layers))]

    @torch.no_grad()
    @_in_precision
    def remember(self, x: Tensor, t: Tensor, text: TextKV, cache: KVCache) -> None:
        """Append latents x at t (as in `forward`) to the cache; the last layer runs only up to keys and values."""
        check_batch(x, text)
        frames = x.shape[1]
        tokens, _, modulation, rope = self._embed(x, t, cache)
        *first_layers, last = self.layers
        slots = cache.slots(frames)
        for block, layer_text, join in zip(first_layers, text, self._joins(cache, slots), strict=False):
            tokens = block(tokens, modulation, [(0, tokens.shape[1], layer_text)], rope, None, join)
        cache.write(len(first_layers), slots, last.read(tokens, modulation, rope))
        cache.commit(frames)

    def _embed(self, x: Tensor, t: Tensor, cache: KVCache | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(tokens [B, L, dim], time, modulation, rotary table) of latents x that follow the frames in the cache."""
        batch, frames, _, height, width = x.shape
        if t.shape not in ((batch,), (batch, frames)):
            raise ValueError(f"t: has shape {list(t.shape)}, allowed: [B] or [B, F] = [{batch}, {frames}], as x has")
        head_dim, first = self.config.dim // self.config.num_heads, cache.frames if cache else 0
        rope = rope_table(head_dim, first, frames, height // PATCH, width // PATCH, x.device)
        return self.patch_embedding(x), *self._embed_time(t.to(x.device)), rope

    def _embed_time(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t [B] or [B, F] to (time [B, F or 1, dim], modulation [B, F or 1, 6, dim]), float32 in any precision."""
        waves = timestep_embedding(t if t.ndim == 2 else t[:, None], self.config.freq_dim)
        with torch.autocast(t.device.type, enabled=False):
            time = self.time_embedding(waves.to(self.head.head.weight.dtype))
            return time, self.time_projection(time).unflatten(-1, (6, -1))
