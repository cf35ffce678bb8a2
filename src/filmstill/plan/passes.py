"""The passes of a network that a stage is made of, in numbers: how many tokens, and how many keys they see."""

from dataclasses import dataclass

from filmstill.models.attention import BlockCausal
from filmstill.params.shared import PATCH


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
