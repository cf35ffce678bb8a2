"""Gates: what a training stage must reach before its result is published."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key


@dataclass
class Gate:
    """Checked on the stage's own samples before it publishes. A gate is not part of a work folder's key."""

    prompts: int = key(48, "train prompts that are sampled and scored")
    min_all_attributes: float | None = key(0.0, "least share of clips with every attribute right; null: not checked")
    max_loss_ratio: float | None = key(
        None, "most that the mean loss of the last tenth of steps may be, over the first tenth's; null: not checked"
    )

    def __post_init__(self) -> None:
        require(self.prompts > 0, "prompts", self.prompts, "a positive integer")
        share = self.min_all_attributes
        require(share is None or 0 <= share <= 1, "min_all_attributes", share, "null or a share in [0, 1]")
        ratio = self.max_loss_ratio
        require(ratio is None or ratio > 0, "max_loss_ratio", ratio, "null or a positive number")
