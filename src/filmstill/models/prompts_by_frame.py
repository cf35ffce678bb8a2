"""Prompts as the network reads them: their keys and values, and which frames of a sequence see which prompt."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from filmstill.models.kv_cache import KeysValues

TextKV = list[KeysValues]  # per layer: keys and values of the prompt, [B, heads, text_len, head_dim]
Spans = list[tuple[int, int, KeysValues]]  # (first token, end token, the prompt that they see), in order


@dataclass(frozen=True)
class TextByFrame:
    """Prompts of one sequence: frames from starts[i] on see texts[i]; starts[0] is 0."""

    starts: tuple[int, ...]
    texts: tuple[TextKV, ...]

    def spans(self, layer: int, frames: int, frame_tokens: int, times: int) -> Spans:
        """What the tokens of `layer` see in a sequence of `frames`, `times` times in a row."""
        edges = list(pairwise((*self.starts, frames)))
        return [
            ((first + skipped) * frame_tokens, (end + skipped) * frame_tokens, text[layer])
            for skipped in range(0, times * frames, frames)
            for (first, end), text in zip(edges, self.texts, strict=True)
        ]


def check_batch(x: Tensor, text: TextKV | TextByFrame) -> None:
    """Raise ValueError unless `text` holds one prompt per sample of x: attention would broadcast a single one."""
    for each in text.texts if isinstance(text, TextByFrame) else (text,):
        if (prompts := len(each[0][0])) != len(x):
            raise ValueError(f"text: is of {prompts} prompts, allowed: one per sample of x, {len(x)}")
