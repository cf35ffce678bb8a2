"""The section `schedule` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require


@dataclass
class Schedule:
    """The one flow-matching schedule of the pipeline: sigma = shift*u / (1 + (shift - 1)*u)."""

    shift: float = 3.0

    def __post_init__(self) -> None:
        require(self.shift >= 1, "shift", self.shift, "a number >= 1")
