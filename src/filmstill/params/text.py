"""The section `text` of params.yaml: the text encoder."""

from dataclasses import dataclass

from filmstill.errors import require

PLACEMENTS = ("cpu", "gpu", "offload")


@dataclass
class Text:
    """The text encoder. The embedded one has no weights and needs no place."""

    placement: str = "cpu"  # of a released encoder: cpu, gpu (it stays), or offload (only to encode)
    negative: str = ""  # prompt of guidance's other branch

    def __post_init__(self) -> None:
        require(self.placement in PLACEMENTS, "placement", self.placement, f"one of {', '.join(PLACEMENTS)}")
