"""The section `student` of params.yaml: how the causal student rolls out."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from filmstill.errors import FilmstillError, require
from filmstill.params.keys import check_intervals, key
from filmstill.params.load import checked

POSITIONS = ("absolute", "relative")
PROMPT_CHANGES = ("keep", "recache", "cut")


@dataclass
class Student:
    """How the causal student rolls out, in training and in serving."""

    denoising_steps: int = key(
        4, "denoising steps per block, at u = 1, 1 - 1/denoising_steps, ... of the schedule", "[1, 1000]"
    )
    first_denoising_steps: int | None = key(
        None, "denoising steps of the first block, which nothing precedes; null: as many as of the others", "[1, 1000]"
    )
    block_frames: int = key(3, "latent frames denoised together", "[1, 10000]")
    window_frames: int | None = key(
        9, "latent frames a block attends to, itself and the sink included; null: all", "[1, 100000]"
    )
    sink_frames: int = key(0, "number of first latent frames that never leave the window", "[0, 100000]")
    independent_first: bool = key(False, "true: the first latent frame is a block by itself, as a picture is")
    positions: str = key(
        "absolute",
        f"rotary positions, {' or '.join(POSITIONS)}: relative moves the sink's on, so that they adjoin the window",
    )
    prompt_change: str = key(
        "keep",
        f"what a new prompt in mid-stream does to the context, {', '.join(PROMPT_CHANGES)}: nothing; compute the last "
        "window anew under it; drop all but the sink and kept_frames",
    )
    kept_frames: int = key(2, "latent frames before a change of prompt that `cut` keeps", "[0, 10000]")
    context_noise: float = key(0.0, "sigma at which a finished block enters the KV cache", "[0, 1)")

    def __post_init__(self) -> None:
        check_intervals(self)
        require(self.positions in POSITIONS, "positions", self.positions, f"one of {', '.join(POSITIONS)}")
        changes = f"one of {', '.join(PROMPT_CHANGES)}"
        require(self.prompt_change in PROMPT_CHANGES, "prompt_change", self.prompt_change, changes)
        if self.window_frames is not None:
            least = self.sink_frames + self.block_frames
            allowed = f"null, or at least sink_frames + block_frames = {least}"
            require(self.window_frames >= least, "window_frames", self.window_frames, allowed)

    @classmethod
    def of(cls, facts: Mapping[str, Any], file: str) -> "Student":
        """The section as the header of a student's `file` holds it, checked.

        Raises FilmstillError for a key that is absent and for a value that params.yaml may not have.
        """
        if absent := [field.name for field in fields(cls) if field.name not in facts]:
            raise FilmstillError(
                f"{file}: its header has no '{absent[0]}': another version of filmstill wrote it; distil it again, or "
                "`convert --to filmstill --student` its weights"
            )
        return checked(cls, {field.name: facts[field.name] for field in fields(cls)}, file)

    @property
    def steps_of_first_block(self) -> int:
        """Denoising steps of the first block."""
        return self.first_denoising_steps or self.denoising_steps

    def mean_steps(self, blocks: int) -> float:
        """Denoising steps per block of a rollout of `blocks` blocks."""
        return (self.steps_of_first_block + (blocks - 1) * self.denoising_steps) / blocks

    @property
    def first_block_frames(self) -> int:
        """Frames of the first block."""
        return 1 if self.independent_first else self.block_frames

    def check_frames(self, frames: int, frames_key: str) -> None:
        """Refuse a clip length that is not a whole number of blocks."""
        check_whole_blocks(frames_key, frames, self, "whole blocks of the student")

    def check_start(self, frame: int, frame_key: str) -> None:
        """Refuse a frame that is no block's first, and the first block's."""
        check_whole_blocks(frame_key, frame, self, "the first frame of a block of the student")


class Blocks(Protocol):
    """Blocks of a clip: the first, and all others."""

    @property
    def first_block_frames(self) -> int: ...

    @property
    def block_frames(self) -> int: ...


def check_whole_blocks(name: str, frames: int, blocks: Blocks, meaning: str) -> None:
    """Refuse a number of frames that whole blocks do not have. It is also the frame that the next block begins at."""
    first, block = blocks.first_block_frames, blocks.block_frames
    allowed = f"{meaning}: {first}, {first + block}, {first + 2 * block}, …"
    require(frames >= first and (frames - first) % block == 0, name, frames, allowed)
