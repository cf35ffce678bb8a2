"""The section `evaluate` of params.yaml."""

from dataclasses import dataclass

from filmstill.params.keys import check_intervals, key

CHANGE_BLOCKS = 3  # after a change of prompt: a window that begins with the last of them or before counts as soon


@dataclass
class Evaluate:
    """How samples are scored and shown. Nothing here changes what was sampled."""

    resamples: int = key(1000, "bootstrap resamples of the prompts, for 95 % intervals", "[100, 1000000]")
    window_frames: int = key(12, "latent frames of the long stream that are scored together", "[3, 100000]")
    references: int = key(240, "real clips behind each dimension's floor and ceiling", "[24, 2000]")
    sheet_prompts: int = key(6, "rows of the side-by-side sheet", "[1, 200]")

    def __post_init__(self) -> None:
        check_intervals(self)
