"""Parameters of the evaluate stage."""

from dataclasses import dataclass

from filmstill.errors import require


@dataclass
class Evaluate:
    """How digits-bench is measured and shown. None of it changes what was sampled."""

    resamples: int = 1000  # of the bootstrap over prompts, for 95 % intervals
    window_frames: int = 12  # frames of the long stream that are scored together
    references: int = 240  # real clips behind each dimension's floor and ceiling
    sheet_prompts: int = 6  # rows of the side-by-side sheet

    def __post_init__(self) -> None:
        require(self.resamples >= 100, "resamples", self.resamples, "at least 100: fewer give no 95 % interval")
        require(self.window_frames >= 3, "window_frames", self.window_frames, "at least 3 frames: less shows no motion")
        require(self.references >= 24, "references", self.references, "at least 24 clips: every colour and motion")
        require(self.sheet_prompts > 0, "sheet_prompts", self.sheet_prompts, "a positive integer")
