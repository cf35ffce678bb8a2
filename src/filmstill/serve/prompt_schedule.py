"""The prompts of one stream: which begins at which latent frame."""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from filmstill.diffusion.rollout import TextAt
from filmstill.errors import FilmstillError, require
from filmstill.models.attention import BlockCausal
from filmstill.models.prompts_by_frame import TextKV
from filmstill.params.student import check_whole_blocks

FORM = '"0: a red star bobs up and down; 48: a blue heart bobs up and down"'
PART = re.compile(r"\s*(\d{1,12})\s*:(?!\d)\s*(\S.*?)\s*", re.DOTALL)
BETWEEN = re.compile(r";(?=\s*\d+\s*:(?!\d))")  # a prompt may have a semicolon in it, and a time such as 12:30


@dataclass(frozen=True)
class PromptSchedule:
    """Prompts, and the latent frame at which each begins; the first begins at frame 0."""

    starts: tuple[int, ...]
    prompts: tuple[str, ...]

    @classmethod
    def of(cls, prompt: str) -> "PromptSchedule":
        """One prompt from the first frame to the last."""
        return cls((0,), (prompt,))

    @classmethod
    def parse(cls, text: str) -> "PromptSchedule":
        """The value of --prompts-at, of the form FORM. Raises FilmstillError for any other, and for wrong frames."""
        parts = [PART.fullmatch(part) for part in BETWEEN.split(text.rstrip("; \t\n"))]
        found = [(int(part[1]), part[2]) for part in parts if part]
        if len(found) < len(parts):
            raise FilmstillError(f"--prompts-at: is {text!r}, allowed: latent frames and prompts, as in {FORM}")
        starts, prompts = zip(*found, strict=True)
        require(starts[0] == 0, "--prompts-at", starts[0], "0 for the first prompt's frame")
        for before, start in pairwise(starts):
            require(before < start, "--prompts-at", start, f"a frame after {before}, where the prompt before it begins")
        return cls(starts, prompts)

    def check(self, attention: BlockCausal, frames: int | None) -> None:
        """Raise FilmstillError for a prompt that begins inside a block, or after the stream's end."""
        for start in self.starts[1:]:
            check_whole_blocks("--prompts-at", start, attention, "the first frame of a block")
            if frames is not None:
                require(start < frames, "--prompts-at", start, f"a frame of the stream, which has {frames}")

    def text_at(self, read: Callable[[str], TextKV]) -> TextAt:
        """What `rollout_stream` asks for: every prompt is read once, and equal prompts are one object."""
        texts = {prompt: read(prompt) for prompt in dict.fromkeys(self.prompts)}
        return lambda frame: texts[self.prompts[bisect_right(self.starts, frame) - 1]]

    def __str__(self) -> str:
        if len(self.prompts) == 1:
            return self.prompts[0]
        return "; ".join(f"{start}: {prompt}" for start, prompt in zip(self.starts, self.prompts, strict=True))
