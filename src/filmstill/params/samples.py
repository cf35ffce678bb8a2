"""Parameters of the samples stage."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.student import Student


@dataclass
class Samples:
    """Clips of every arm on the same prompts and the same seeds."""

    prompts: int = 64  # of the eval split
    seeds: int = 2  # clips a prompt
    teacher_steps: int = 48  # Euler steps
    guidance_scale: float = 3.0
    batch: int = 64  # clips made together
    fast_decoder: bool = False  # decode by the release's small decoder (TAEHV) instead of its VAE
    long_prompts: int = 24  # prompts of the long stream
    long_frames: int = 60
    long_window_frames: int = 9  # local attention window of the long stream

    def __post_init__(self) -> None:
        require(
            self.guidance_scale >= 0, "guidance_scale", self.guidance_scale, "0 or a positive weight: 1 is no guidance"
        )
        for name in ("prompts", "seeds", "teacher_steps", "batch", "long_prompts", "long_frames"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        allowed = f"at most prompts ({self.prompts})"
        require(self.long_prompts <= self.prompts, "long_prompts", self.long_prompts, allowed)

    def check_student(self, student: Student) -> None:
        """Refuse a long stream that the student cannot roll out."""
        least, window = student.sink_frames + student.block_frames, self.long_window_frames
        require(window >= least, "samples.long_window_frames", window, f"at least student's sink + block = {least}")
        student.check_frames(self.long_frames, "samples.long_frames")
