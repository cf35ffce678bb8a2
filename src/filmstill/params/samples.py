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
    changed_prompts: int = key(
        48,
        "number of prompts, the first of `prompts`, of clips that begin with a picture and of streams whose prompt "
        "changes to another of them; 0: neither is made (symbols world only, as the next two keys)",
        "[0, 100000]",
    )
    change_frame: int = key(24, "latent frame at which the prompt changes, the first of a block", "[1, 1000000]")
    changed_frames: int = key(
        156, "latent frames of a stream whose prompt changes, under the long stream's window", "[1, 1000000]"
    )

    def __post_init__(self) -> None:
        check_intervals(self)
        allowed = f"at most prompts ({self.prompts})"
        require(self.long_prompts <= self.prompts, "long_prompts", self.long_prompts, allowed)

    def clips(self, world: str) -> int:
        """Clips of every arm that is compared, in the world of this name."""
        main = self.prompts * self.seeds
        return main + self.held_out_prompts + self.open_prompts * self.open_seeds if world == EMBEDDED else main

    def changed(self, world: str) -> int:
        """Clips that begin with a picture, and as many streams whose prompt changes; none in a world without judge."""
        return self.changed_prompts if world == EMBEDDED else 0

    def check_student(self, student: Student, world: str) -> None:
        """Refuse streams that the student cannot roll out in the world of this name."""
        least, window = student.sink_frames + student.block_frames, self.long_window_frames
        require(window >= least, "samples.long_window_frames", window, f"at least student's sink + block = {least}")
        student.check_frames(self.long_frames, "samples.long_frames")
        if changed := self.changed(world):
            allowed = f"0, or from 2 to samples.prompts ({self.prompts}): a prompt changes to another one of them"
            require(1 < changed <= self.prompts, "samples.changed_prompts", changed, allowed)
            student.check_start(self.change_frame, "samples.change_frame")
            student.check_frames(self.changed_frames, "samples.changed_frames")
