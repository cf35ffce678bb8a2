"""The section `ode_init` of params.yaml."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.gates import Gate
from filmstill.params.keys import key


@dataclass
class OdeInit:
    """Regression of the teacher's clips from its ODE trajectories, causally (CausVid, arXiv:2412.07772)."""

    steps: int = key(250, "optimizer steps")
    batch: int = key(16, "samples per step, over all ranks")
    muon_lr: float | None = key(5e-3, "learning rate of Muon, for the blocks' matrices; null: AdamW trains them too")
    adamw_lr: float = key(1e-3, "learning rate of AdamW, for all other parameters")
    beta1: float = key(0.9, "AdamW's beta1")
    beta2: float = key(0.999, "AdamW's beta2")
    weight_decay: float = key(0.0, "weight decay of Muon, or of AdamW where muon_lr is null")
    max_grad_norm: float = key(1.0, "gradients are clipped to this norm")
    warmup: int = key(10, "steps of linear warm-up")
    lr_decay_fraction: float = key(0.5, "learning rates decay linearly to 0 over this last fraction of the steps")
    checkpoint_every: int = key(25, "steps between checkpoints")
    sheet_every: int = key(50, "steps between sample sheets")
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
