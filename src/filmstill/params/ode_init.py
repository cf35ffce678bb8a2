"""Parameters of the ode_init stage."""

from dataclasses import dataclass, field

from filmstill.params.gates import Gate
from filmstill.params.load import require


@dataclass
class OdeInit:
    """Regression of the teacher's x0 from its trajectories."""

    steps: int = 300
    batch: int = 16
    lr: float = 3e-4
    checkpoint_every: int = 50
    sheet_every: int = 100
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every", "sheet_every"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        require(self.lr > 0, "lr", self.lr, "a positive number")
