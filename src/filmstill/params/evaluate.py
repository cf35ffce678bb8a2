"""The section `evaluate` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key


@dataclass
class Evaluate:
    """How samples are scored and shown. Nothing here changes what was sampled."""

    resamples: int = key(1000, "bootstrap resamples of the prompts, for 95 % intervals")
    window_frames: int = key(12, "latent frames of the long stream that are scored together")
    references: int = key(240, "real clips behind each dimension's floor and ceiling")
    sheet_prompts: int = key(6, "rows of the side-by-side sheet")

    def __post_init__(self) -> None:
        require(self.resamples >= 100, "resamples", self.resamples, "at least 100: fewer give no 95 % interval")
        require(self.window_frames >= 3, "window_frames", self.window_frames, "at least 3 frames: less shows no motion")
        require(self.references >= 24, "references", self.references, "at least 24 clips: every colour and motion")
        require(self.sheet_prompts > 0, "sheet_prompts", self.sheet_prompts, "a positive integer")
