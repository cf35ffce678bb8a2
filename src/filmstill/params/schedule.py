"""The section `schedule` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key


@dataclass
class Schedule:
    """The one flow-matching schedule of the pipeline: sigma = shift * u / (1 + (shift - 1) * u)."""

    shift: float = key(3.0, "1 or more; more moves the steps towards noise")

    def __post_init__(self) -> None:
        require(self.shift >= 1, "shift", self.shift, "a number >= 1")
