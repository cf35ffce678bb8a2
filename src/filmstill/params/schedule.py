"""The section `schedule` of params.yaml."""

from dataclasses import dataclass

from filmstill.params.keys import check_intervals, key


@dataclass
class Schedule:
    """The one flow-matching schedule of the pipeline: sigma = shift * u / (1 + (shift - 1) * u)."""

    shift: float = key(3.0, "1 or more; more moves the steps towards noise", "[1, 1000]")

    def __post_init__(self) -> None:
        check_intervals(self)
