"""Parameters of the teacher stage."""

from dataclasses import dataclass

from filmstill.errors import require

NOTHING = "data/released/none"  # a folder that holds no model


@dataclass
class Teacher:
    """Where the teacher comes from: an imported release, or (from `steps` on) the embedded world's training."""

    released: str = NOTHING  # folder of a released model: what makes the pairs, and what student and critic start from
    real_score: str = NOTHING  # folder of a larger one, or of two experts, whose score the student follows instead
    boundary: float = 0.875  # sigma from which on the expert for high noise answers (Wan2.2 T2V A14B's)
    steps: int = 800
    batch: int = 24
    muon_lr: float = 2e-2  # matrices inside the blocks
    adamw_lr: float = 3e-3  # everything else
    weight_decay: float = 0.1  # of the blocks' matrices
    warmup: int = 50  # steps
    lr_decay_fraction: float = 0.3  # of the steps, at the end, down to 0
    ema: float = 0.99
    drop_prompt: float = 0.1  # share of clips trained without prompt, for guidance
    checkpoint_every: int = 100
    sheet_every: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every", "sheet_every"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("muon_lr", "adamw_lr"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        for name in ("lr_decay_fraction", "drop_prompt"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a share in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or a positive number")
        require(0 <= self.ema < 1, "ema", self.ema, "a decay in [0, 1)")
        require(0 < self.boundary < 1, "boundary", self.boundary, "a sigma in (0, 1)")
        require(self.warmup >= 0, "warmup", self.warmup, "0 or more steps")
