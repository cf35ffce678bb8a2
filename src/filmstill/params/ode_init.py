"""Parameters of the ode_init stage."""

from dataclasses import dataclass, field

from filmstill.params.gates import Gate
from filmstill.params.load import require


@dataclass
class OdeInit:
    """Regression of the teacher's x0 from its trajectories."""

    steps: int = 250
    batch: int = 16
    muon_lr: float = 5e-3  # matrices inside the blocks
    adamw_lr: float = 1e-3  # everything else
    warmup: int = 10  # steps
    decay_share: float = 0.5  # of the steps, at the end, down to 0
    checkpoint_every: int = 25
    sheet_every: int = 50
    gate: Gate = field(default_factory=lambda: Gate(min_all_attributes=0.5, max_loss_ratio=0.8))

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every", "sheet_every"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("muon_lr", "adamw_lr"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        require(self.warmup >= 0, "warmup", self.warmup, "0 or more steps")
        require(0 <= self.decay_share < 1, "decay_share", self.decay_share, "a share in [0, 1)")
