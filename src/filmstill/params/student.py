"""The section `student` of params.yaml: how the causal student rolls out."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from filmstill.errors import FilmstillError, require
from filmstill.params.keys import check_intervals, key
from filmstill.params.load import checked


@dataclass
class Student:
    """How the causal student rolls out, in training and in serving."""

    denoising_steps: int = key(
        4, "denoising steps per block, at u = 1, 1 - 1/denoising_steps, ... of the schedule", "[1, 1000]"
    )
    block_frames: int = key(3, "latent frames denoised together", "[1, 10000]")
    window_frames: int | None = key(
        9, "latent frames a block attends to, itself and the sink included; null: all", "[1, 100000]"
    )
    sink_frames: int = key(0, "number of first latent frames that never leave the window", "[0, 100000]")
    context_noise: float = key(0.0, "sigma at which a finished block enters the KV cache", "[0, 1)")

    def __post_init__(self) -> None:
        check_intervals(self)
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

    def check_frames(self, frames: int, frames_key: str) -> None:
        """Refuse a clip length that is not a whole number of blocks."""
        allowed = f"a multiple of student.block_frames ({self.block_frames})"
        require(frames % self.block_frames == 0, frames_key, frames, allowed)
