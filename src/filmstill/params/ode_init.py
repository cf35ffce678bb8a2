"""Parameters of the ode_init stage."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.gates import Gate


@dataclass
class OdeInit:
    """Regression of the teacher's x0 from its trajectories."""

    steps: int = 250
    batch: int = 16
    muon_lr: float | None = 5e-3  # matrices inside the blocks; null: AdamW for them, too
    adamw_lr: float = 1e-3  # everything else
    beta1: float = 0.9  # AdamW's
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    warmup: int = 10  # steps
    lr_decay_fraction: float = 0.5  # of the steps, at the end, down to 0
    checkpoint_every: int = 25
    sheet_every: int = 50
    gate: Gate = field(default_factory=lambda: Gate(min_all_attributes=0.5, max_loss_ratio=0.8))

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every", "sheet_every"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("adamw_lr", "max_grad_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        require(self.muon_lr is None or self.muon_lr > 0, "muon_lr", self.muon_lr, "null or a positive number")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or a positive number")
        require(self.warmup >= 0, "warmup", self.warmup, "0 or more steps")
        require(0 <= self.lr_decay_fraction < 1, "lr_decay_fraction", self.lr_decay_fraction, "a share in [0, 1)")
