"""The section `text` of params.yaml: the text encoder."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key

PLACEMENTS = ("cpu", "gpu", "offload")


@dataclass
class Text:
    """The text encoder. The embedded world's has no weights and needs no placement."""

    placement: str = key(
        "cpu", "where a released encoder runs: cpu, gpu (stays loaded) or offload (on the GPU to encode)"
    )
    negative: str = key("", "negative prompt, the unconditional branch of guidance")

    def __post_init__(self) -> None:
        require(self.placement in PLACEMENTS, "placement", self.placement, f"one of {', '.join(PLACEMENTS)}")
