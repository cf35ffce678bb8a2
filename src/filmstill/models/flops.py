"""Floating-point operations of VideoDiT: 2*m*n*k per matrix product; all other operations are neglected.

`Pass` and `Clip` hold the numbers of tokens and of visible keys. The formulas follow the network term by term. A
backward pass costs twice the forward pass, or once for a product whose input needs no gradient. Activation
checkpointing adds one more forward pass of the layers. Only planner and telemetry use these numbers.
"""

from dataclasses import dataclass, replace
from math import ceil

from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.parameter_counts import patch_size
from filmstill.params.model import PATCH


@dataclass(frozen=True)
class Pass:
    """One forward pass with `batch` samples of `tokens` tokens each.

    Per sample: keys: keys of self-attention, including cached ones; pairs: (query, key) pairs computed; text_len:
    tokens of the prompt; times: timesteps, 1 or one per frame.
    """

    batch: int
    tokens: int
    keys: int
    pairs: int
    text_len: int
    times: int = 1

    @property
    def all_tokens(self) -> int:
        """Tokens of the batch."""
        return self.batch * self.tokens

    @property
    def all_keys(self) -> int:
        """Keys of the batch."""
        return self.batch * self.keys


@dataclass(frozen=True)
class Clip:
    """A clip of `frames` latent frames with `frame_tokens` tokens each, and a prompt of `text_len` tokens."""

    frames: int
    frame_tokens: int
    text_len: int

    @classmethod
    def of(cls, latent_shape: tuple[int, int, int, int], text_len: int) -> "Clip":
        """The clip of latents with shape (F, C, H, W)."""
        frames, _, height, width = latent_shape
        return cls(frames, height * width // PATCH**2, text_len)

    @property
    def tokens(self) -> int:
        """Tokens of the clip."""
        return self.frames * self.frame_tokens

    def whole(self, batch: int = 1) -> Pass:
        """A bidirectional pass, in which every frame sees every frame."""
        return Pass(batch, self.tokens, self.tokens, self.tokens**2, self.text_len)

    def blocks(self, attention: BlockCausal, batch: int = 1) -> list[Pass]:
        """A rollout's pass over each block, with the frames before it in the KV cache."""
        passes = []
        for start, end in attention.blocks(self.frames):
            visible = end if attention.window_frames is None else min(end, attention.window_frames)
            tokens, keys = (end - start) * self.frame_tokens, visible * self.frame_tokens
            passes.append(Pass(batch, tokens, keys, tokens * keys, self.text_len))
        return passes

    def causal(self, attention: BlockCausal, batch: int = 1) -> Pass:
        """A pass over the whole clip under the block-causal mask, one timestep per frame; masked pairs are skipped."""
        pairs = sum(block.pairs for block in self.blocks(attention))
        return Pass(batch, self.tokens, self.tokens, pairs, self.text_len, self.frames)

    def cached_tokens(self, attention: BlockCausal, graph_frames: int = 0) -> int:
        """Tokens per sample that the KV cache has room for, as `BlockCausal.cache_frames`."""
        return attention.cache_frames(self.frames, graph_frames) * self.frame_tokens


@dataclass(frozen=True)
class TrainingRollout:
    """A rollout that ends with the clip that the loss is on, its window.

    before: passes over the blocks before the window, each denoised in `steps` passes without a gradient, in none if
    they are given. window: passes over its blocks, each denoised in `passes` passes, the exit step included, of which
    the last has a gradient.
    """

    clip: Clip
    before: list[Pass]
    window: list[Pass]
    steps: float
    passes: float

    @classmethod
    def of(
        cls, clip: Clip, attention: BlockCausal, start: int, steps: float, passes: float, batch: int = 1
    ) -> "TrainingRollout":
        """start: first frame of the window, which has the frames of `clip`."""
        frames = start + clip.frames
        blocks = replace(clip, frames=frames).blocks(attention, batch)
        count = sum(first < start for first, _ in attention.blocks(frames))
        return cls(clip, blocks[:count], blocks[count:], steps, passes)

    def flops(self, config: DiTConfig) -> float:
        """Operations of its forward passes."""
        each = (self.steps * forward_flops(config, b) + remember_flops(config, b) for b in self.before)
        return sum(each) + rollout_flops(config, self.window, self.passes)


def text_flops(config: DiTConfig, batch: int, text_len: int) -> float:
    """Operations of `read_text`: the text embedding and every layer's keys and values."""
    dim = config.dim
    return 2.0 * batch * text_len * (config.text_dim * dim + dim**2 + config.num_layers * 2 * dim**2)


def text_backward_flops(config: DiTConfig, batch: int, text_len: int) -> float:
    """Operations of the backward pass of `read_text`; the text itself has no gradient."""
    return 2 * text_flops(config, batch, text_len) - 2.0 * batch * text_len * config.text_dim * config.dim


def forward_flops(config: DiTConfig, call: Pass) -> float:
    """Operations of `forward`, without those of `read_text`."""
    head = 2.0 * call.all_tokens * config.dim * patch_size(config)
    return _embedding_flops(config, call) + config.num_layers * layer_flops(config, call) + head


def layer_flops(config: DiTConfig, call: Pass) -> float:
    """Operations of one layer: self-attention with four projections, cross-attention with two, the feed-forward."""
    dim = config.dim
    projections = 2.0 * call.tokens * (6 * dim**2 + 2 * dim * config.ffn_dim)
    attention = 4.0 * dim * (call.pairs + call.tokens * call.text_len)
    return call.batch * (projections + attention)


def remember_flops(config: DiTConfig, call: Pass) -> float:
    """Operations of `remember`: all layers but the last, the last layer's keys and values, no head."""
    keys_values = 2.0 * call.all_tokens * 2 * config.dim**2
    return _embedding_flops(config, call) + (config.num_layers - 1) * layer_flops(config, call) + keys_values


def backward_flops(config: DiTConfig, call: Pass, activation_checkpointing: bool) -> float:
    """Operations of the backward pass of `forward`."""
    again = config.num_layers * layer_flops(config, call) if activation_checkpointing else 0.0
    return 2 * forward_flops(config, call) - _input_flops(config, call) + again


def rollout_flops(config: DiTConfig, blocks: list[Pass], passes: float) -> float:
    """Operations of a rollout of `blocks` with `passes` denoising passes each; all but the last block are cached."""
    batch, text_len = blocks[0].batch, blocks[0].text_len
    denoising = sum(passes * forward_flops(config, block) for block in blocks)
    context = sum(remember_flops(config, block) for block in blocks[:-1])
    return text_flops(config, batch, text_len) + denoising + context


def prompt_change_flops(config: DiTConfig, clip: Clip, attention: BlockCausal, recache: bool) -> float:
    """Operations of a change of prompt after the frames of `clip`: of its text and, with `recache`, of the blocks of
    the last window, which are remembered anew."""
    text = text_flops(config, 1, clip.text_len)
    if not recache:
        return text
    window, block = attention.window_frames or clip.frames, attention.block_frames
    frames = min(clip.frames, ceil(window / block) * block)
    whole_clip = attention.independent_first and frames == clip.frames
    blocks = replace(clip, frames=frames).blocks(replace(attention, independent_first=whole_clip))
    return text + sum(remember_flops(config, each) for each in blocks)


def rollout_backward_flops(config: DiTConfig, blocks: list[Pass], activation_checkpointing: bool) -> float:
    """Operations of the backward pass of a rollout, through one denoising pass per block."""
    text = text_backward_flops(config, blocks[0].batch, blocks[0].text_len)
    return text + sum(backward_flops(config, block, activation_checkpointing) for block in blocks)


def regression_flops(config: DiTConfig, call: Pass, activation_checkpointing: bool) -> float:
    """Operations of a forward and a backward pass with text: an update of critic, ODE init or embedded teacher."""
    text = text_flops(config, call.batch, call.text_len) + text_backward_flops(config, call.batch, call.text_len)
    return text + forward_flops(config, call) + backward_flops(config, call, activation_checkpointing)


def critic_update_flops(config: DiTConfig, rolled: TrainingRollout, activation_checkpointing: bool) -> float:
    """Operations of a critic update per sample: rollout, then forward and backward pass over its window."""
    return rolled.flops(config) + regression_flops(config, rolled.clip.whole(), activation_checkpointing)


def generator_update_flops(
    config: DiTConfig, score: DiTConfig, branches: int, rolled: TrainingRollout, activation_checkpointing: bool
) -> float:
    """Operations of a generator update per sample: rollout, backward pass of its window, guided teacher, critic.

    score: sizes of the teacher. branches: of its guidance, 1 or 2.
    """
    backward = rollout_backward_flops(config, rolled.window, activation_checkpointing)
    scores = reading_flops(score, rolled.clip.whole(branches)) + reading_flops(config, rolled.clip.whole())
    return rolled.flops(config) + backward + scores


def reading_flops(config: DiTConfig, call: Pass) -> float:
    """Operations of `read_text` and one forward pass."""
    return text_flops(config, call.batch, call.text_len) + forward_flops(config, call)


def sampling_flops(config: DiTConfig, call: Pass, steps: int) -> float:
    """Operations of a sampler with `steps` passes; the batch of `call` includes the unconditional branch."""
    return text_flops(config, call.batch, call.text_len) + steps * forward_flops(config, call)


def _embedding_flops(config: DiTConfig, call: Pass) -> float:
    """Operations from patches to tokens and from timesteps to modulation."""
    return _input_flops(config, call) + 2.0 * call.batch * call.times * 7 * config.dim**2


def _input_flops(config: DiTConfig, call: Pass) -> float:
    """Operations of the products whose input, latents or sinusoids of the timestep, needs no gradient."""
    return 2.0 * config.dim * (call.all_tokens * patch_size(config) + call.batch * call.times * config.freq_dim)
