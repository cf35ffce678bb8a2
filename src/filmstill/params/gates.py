"""Gates: what a training stage must reach before its result is published."""

from dataclasses import dataclass

from filmstill.params.keys import check_intervals, key


@dataclass
class Gate:
    """Checked on the stage's own samples before it publishes. A gate is not part of a work folder's key."""

    prompts: int = key(48, "train prompts that are sampled and scored", "[1, 100000]")
    min_all_attributes: float | None = key(
        0.0, "least share of clips with every attribute right; null: not checked", "[0, 1]"
    )
    max_loss_ratio: float | None = key(
        None,
        "most that the mean loss of the last tenth of steps may be, over the first tenth's; null: not checked",
        "(0, 1000000]",
    )

    stream_frames: int | None = key(
        None, "latent frames of a stream of these prompts, scored in windows of world.frames; null: none", "[3, 100000]"
    )
    min_stream: float | None = key(
        None, "least share of streams with every attribute right in the worst window; null: not checked", "[0, 1]"
    )

    def __post_init__(self) -> None:
        check_intervals(self)
