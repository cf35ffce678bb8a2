"""The section `samples` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import check_intervals, key
from filmstill.params.student import Student
from filmstill.params.world import EMBEDDED


@dataclass
class Samples:
    """Clips of every arm on the same prompts and the same seeds."""

    prompts: int = key(
        64, "number of eval prompts; in the symbols world, of those that name a combination trained on", "[1, 100000]"
    )
    seeds: int = key(2, "clips per prompt", "[1, 1000]")
    held_out_prompts: int = key(
        24,
        "further eval prompts, of combinations that no model trains on, one clip each (symbols world only, as the next "
        "two keys)",
        "[0, 100000]",
    )
    open_prompts: int = key(12, "further eval prompts, which leave the colour open", "[0, 100000]")
    open_seeds: int = key(12, "clips per prompt that leaves the colour open", "[2, 1000]")
    teacher_steps: int = key(48, "Euler steps of the teacher's sampler", "[1, 10000]")
    guidance_scale: float = key(1.5, "weight w of the teacher's guidance, uncond + w * (cond - uncond)", "[0, 1000]")
    teacher_shards: int = key(4, "most files of the teacher's clips, made independently of one another", "[1, 1000]")
    batch: int = key(24, "clips made together", "[1, 65536]")
    fast_decoder: bool = key(False, "true: decode with the release's small decoder (TAEHV) instead of its VAE")
    timing_rounds: int = key(3, "rounds in which every arm makes one batch, in turns, to be timed", "[1, 1000]")
    long_prompts: int = key(48, "number of prompts of the long stream, the first of `prompts`", "[1, 100000]")
    long_frames: int = key(240, "latent frames of the long stream", "[1, 1000000]")
    long_window_frames: int = key(9, "local attention window of the long stream, in latent frames", "[1, 100000]")

    def __post_init__(self) -> None:
        check_intervals(self)
        allowed = f"at most prompts ({self.prompts})"
        require(self.long_prompts <= self.prompts, "long_prompts", self.long_prompts, allowed)

    def clips(self, world: str) -> int:
        """Clips of every arm but the long stream, in the world of this name."""
        main = self.prompts * self.seeds
        return main + self.held_out_prompts + self.open_prompts * self.open_seeds if world == EMBEDDED else main

    def check_student(self, student: Student) -> None:
        """Refuse a long stream that the student cannot roll out."""
        least, window = student.sink_frames + student.block_frames, self.long_window_frames
        require(window >= least, "samples.long_window_frames", window, f"at least student's sink + block = {least}")
        student.check_frames(self.long_frames, "samples.long_frames")
