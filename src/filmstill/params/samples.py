"""The section `samples` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key
from filmstill.params.student import Student


@dataclass
class Samples:
    """Clips of every arm on the same prompts and the same seeds."""

    prompts: int = key(64, "number of eval prompts", "[1, 100000]")
    seeds: int = key(2, "clips per prompt", "[1, 1000]")
    teacher_steps: int = key(48, "Euler steps of the teacher's sampler", "[1, 10000]")
    guidance_scale: float = key(3.0, "weight w of the teacher's guidance, uncond + w * (cond - uncond)", "[0, 1000]")
    batch: int = key(64, "clips made together", "[1, 65536]")
    fast_decoder: bool = key(False, "true: decode with the release's small decoder (TAEHV) instead of its VAE")
    timing_rounds: int = key(3, "rounds in which every arm makes one batch, in turns, to be timed", "[1, 1000]")
    long_prompts: int = key(24, "number of prompts of the long stream", "[1, 100000]")
    long_frames: int = key(60, "latent frames of the long stream", "[1, 1000000]")
    long_window_frames: int = key(9, "local attention window of the long stream, in latent frames", "[1, 100000]")

    def __post_init__(self) -> None:
        check_intervals(self)
        allowed = f"at most prompts ({self.prompts})"
        require(self.long_prompts <= self.prompts, "long_prompts", self.long_prompts, allowed)

    def check_student(self, student: Student) -> None:
        """Refuse a long stream that the student cannot roll out."""
        least, window = student.sink_frames + student.block_frames, self.long_window_frames
        require(window >= least, "samples.long_window_frames", window, f"at least student's sink + block = {least}")
        student.check_frames(self.long_frames, "samples.long_frames")
