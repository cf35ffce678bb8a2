"""Gates: what a training stage must reach before its result is published."""

from dataclasses import dataclass

from filmstill.errors import require


@dataclass
class Gate:
    """Judged on the stage's own samples of `prompts` train prompts. A gate is not part of a work folder's key."""

    prompts: int = 48
    min_all_attributes: float | None = 0.0  # share of clips with digit, colour and motion right; null: not asked
    max_loss_ratio: float | None = None  # mean loss of the last tenth of steps over the first tenth's; null: not asked

    def __post_init__(self) -> None:
        require(self.prompts > 0, "prompts", self.prompts, "a positive integer")
        share = self.min_all_attributes
        require(share is None or 0 <= share <= 1, "min_all_attributes", share, "null or a share in [0, 1]")
        ratio = self.max_loss_ratio
        require(ratio is None or ratio > 0, "max_loss_ratio", ratio, "null or a positive number")
