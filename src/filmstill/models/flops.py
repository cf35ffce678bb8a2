"""Floating-point operations of VideoDiT's passes: 2*m*n*k per matrix product; nothing else counts beside them.

`Pass` and `Clip` say in numbers what is computed: how many tokens, how many keys they see. The formulas follow the
network term by term. A backward pass costs twice the forward one, once where nothing below learns; activation
checkpointing computes the layers once more. Nothing here changes a result: plan and telemetry read it.
"""

from dataclasses import dataclass

from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.parameter_counts import patch_size
from filmstill.params.model import PATCH


@dataclass(frozen=True)
class Pass:
    """One call of the network with `batch` samples of `tokens` tokens.

    keys: of one sample's self-attention, the cached ones included; pairs: (query, key) pairs that it computes;
    text_len: tokens of its prompt; times: timesteps of a sample, 1 or one a frame.
    """

    batch: int
    tokens: int
    keys: int
    pairs: int
    text_len: int
    times: int = 1

    @property
    def all_tokens(self) -> int:
        return self.batch * self.tokens

    @property
    def all_keys(self) -> int:
        return self.batch * self.keys


@dataclass(frozen=True)
class Clip:
    """`frames` latent frames of `frame_tokens` tokens each, and a prompt of `text_len` tokens."""

    frames: int
    frame_tokens: int
    text_len: int

    @classmethod
    def of(cls, latent_shape: tuple[int, int, int, int], text_len: int) -> "Clip":
        """latent_shape: (F, C, H, W)."""
        frames, _, height, width = latent_shape
        return cls(frames, height * width // PATCH**2, text_len)

    @property
    def tokens(self) -> int:
        return self.frames * self.frame_tokens

    def whole(self, batch: int = 1) -> Pass:
        """Every frame sees every frame."""
        return Pass(batch, self.tokens, self.tokens, self.tokens**2, self.text_len)

    def blocks(self, attention: BlockCausal, batch: int = 1) -> list[Pass]:
        """A rollout's pass over each block, the frames before it cached."""
        passes = []
        for start, end in attention.blocks(self.frames):
            seen = end if attention.window_frames is None else min(end, attention.window_frames)
            tokens, keys = (end - start) * self.frame_tokens, seen * self.frame_tokens
            passes.append(Pass(batch, tokens, keys, tokens * keys, self.text_len))
        return passes

    def causal(self, attention: BlockCausal, batch: int = 1) -> Pass:
        """The whole sequence under the block-causal mask, a timestep a frame; what no token sees is skipped."""
        pairs = sum(block.pairs for block in self.blocks(attention))
        return Pass(batch, self.tokens, self.tokens, pairs, self.text_len, self.frames)

    def cached_tokens(self, attention: BlockCausal) -> int:
        """Tokens of a sample in a rollout's cache when its last block is made, which has no use for being kept."""
        start = attention.blocks(self.frames)[-1][0]
        window = attention.window_frames
        kept = start if window is None else min(start, max(window - 1, attention.least_window))
        return kept * self.frame_tokens


def text_flops(config: DiTConfig, batch: int, text_len: int) -> float:
    """`read_text`: the embedding, and every layer's keys and values."""
    dim = config.dim
    return 2.0 * batch * text_len * (config.text_dim * dim + dim**2 + config.num_layers * 2 * dim**2)


def text_backward_flops(config: DiTConfig, batch: int, text_len: int) -> float:
    """Its backward pass; the text itself has no gradient."""
    return 2 * text_flops(config, batch, text_len) - 2.0 * batch * text_len * config.text_dim * config.dim


def forward_flops(config: DiTConfig, call: Pass) -> float:
    """`forward`, the text's keys and values given."""
    head = 2.0 * call.all_tokens * config.dim * patch_size(config)
    return _embedding_flops(config, call) + config.num_layers * layer_flops(config, call) + head


def layer_flops(config: DiTConfig, call: Pass) -> float:
    """One layer: self-attention and its four projections, cross-attention and its two, the feed-forward."""
    dim = config.dim
    projections = 2.0 * call.tokens * (6 * dim**2 + 2 * dim * config.ffn_dim)
    attention = 4.0 * dim * (call.pairs + call.tokens * call.text_len)
    return call.batch * (projections + attention)


def remember_flops(config: DiTConfig, call: Pass) -> float:
    """`remember`: all layers but the last, of which only keys and values, and no head."""
    keys_values = 2.0 * call.all_tokens * 2 * config.dim**2
    return _embedding_flops(config, call) + (config.num_layers - 1) * layer_flops(config, call) + keys_values


def backward_flops(config: DiTConfig, call: Pass, activation_checkpointing: bool) -> float:
    """The backward pass of `forward`."""
    again = config.num_layers * layer_flops(config, call) if activation_checkpointing else 0.0
    return 2 * forward_flops(config, call) - _input_flops(config, call) + again


def rollout_flops(config: DiTConfig, blocks: list[Pass], passes: float) -> float:
    """A rollout of `blocks`, each denoised in `passes` passes; all but the last enter the cache. Text read once."""
    batch, text_len = blocks[0].batch, blocks[0].text_len
    denoising = sum(passes * forward_flops(config, block) for block in blocks)
    context = sum(remember_flops(config, block) for block in blocks[:-1])
    return text_flops(config, batch, text_len) + denoising + context


def rollout_backward_flops(config: DiTConfig, blocks: list[Pass], activation_checkpointing: bool) -> float:
    """The backward pass of a rollout, which goes through one denoising pass a block."""
    text = text_backward_flops(config, blocks[0].batch, blocks[0].text_len)
    return text + sum(backward_flops(config, block, activation_checkpointing) for block in blocks)


def regression_flops(config: DiTConfig, call: Pass, activation_checkpointing: bool) -> float:
    """A forward and a backward pass, text included: an update of the critic, of ODE init, of the embedded teacher."""
    text = text_flops(config, call.batch, call.text_len) + text_backward_flops(config, call.batch, call.text_len)
    return text + forward_flops(config, call) + backward_flops(config, call, activation_checkpointing)


def critic_update_flops(
    config: DiTConfig, clip: Clip, attention: BlockCausal, passes: float, activation_checkpointing: bool
) -> float:
    """A critic update's operations a sample; `passes` of a rollout's blocks each, the one that exits included."""
    rolled = rollout_flops(config, clip.blocks(attention), passes)
    return rolled + regression_flops(config, clip.whole(), activation_checkpointing)


def generator_update_flops(
    config: DiTConfig,
    score: DiTConfig,
    clip: Clip,
    attention: BlockCausal,
    passes: float,
    activation_checkpointing: bool,
) -> float:
    """A generator update's: the rollout with its backward pass, the guided real score, the critic's."""
    blocks = clip.blocks(attention)
    rolled = rollout_flops(config, blocks, passes)
    backward = rollout_backward_flops(config, blocks, activation_checkpointing)
    return rolled + backward + reading_flops(score, clip.whole(2)) + reading_flops(config, clip.whole())


def reading_flops(config: DiTConfig, call: Pass) -> float:
    """One pass of a network that has not read this text yet."""
    return text_flops(config, call.batch, call.text_len) + forward_flops(config, call)


def sampling_flops(config: DiTConfig, call: Pass, steps: int) -> float:
    """`steps` passes of a sampler; `call` is one of them, guidance's other branch in its batch."""
    return text_flops(config, call.batch, call.text_len) + steps * forward_flops(config, call)


def _embedding_flops(config: DiTConfig, call: Pass) -> float:
    """Patches to tokens, timesteps to modulation."""
    return _input_flops(config, call) + 2.0 * call.batch * call.times * 7 * config.dim**2


def _input_flops(config: DiTConfig, call: Pass) -> float:
    """The products that read latents and waves of the timestep, which have no gradient."""
    return 2.0 * config.dim * (call.all_tokens * patch_size(config) + call.batch * call.times * config.freq_dim)
