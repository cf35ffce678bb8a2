"""The section `samples` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key
from filmstill.params.student import Student


@dataclass
class Samples:
    """Clips of every arm on the same prompts and the same seeds."""

    prompts: int = key(64, "number of eval prompts")
    seeds: int = key(2, "clips per prompt")
    teacher_steps: int = key(48, "Euler steps of the teacher's sampler")
    guidance_scale: float = key(3.0, "weight w of the teacher's guidance, uncond + w * (cond - uncond)")
    batch: int = key(64, "clips made together")
    fast_decoder: bool = key(False, "true: decode with the release's small decoder (TAEHV) instead of its VAE")
    long_prompts: int = key(24, "number of prompts of the long stream")
    long_frames: int = key(60, "latent frames of the long stream")
    long_window_frames: int = key(9, "local attention window of the long stream, in latent frames")

    def __post_init__(self) -> None:
        scale = self.guidance_scale
        require(scale >= 0, "guidance_scale", scale, "0 or a positive weight: 1 is no guidance")
        for name in ("prompts", "seeds", "teacher_steps", "batch", "long_prompts", "long_frames"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        allowed = f"at most prompts ({self.prompts})"
        require(self.long_prompts <= self.prompts, "long_prompts", self.long_prompts, allowed)

    def check_student(self, student: Student) -> None:
        """Refuse a long stream that the student cannot roll out."""
        least, window = student.sink_frames + student.block_frames, self.long_window_frames
        require(window >= least, "samples.long_window_frames", window, f"at least student's sink + block = {least}")
        student.check_frames(self.long_frames, "samples.long_frames")
