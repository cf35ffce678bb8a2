"""The section `teacher` of params.yaml."""

from dataclasses import dataclass

from filmstill.errors import require
from filmstill.params.keys import key

NOTHING = "data/released/none"  # a folder that holds no model


@dataclass
class Teacher:
    """Where the teacher comes from: an imported release, or (from `steps` on) the embedded world's training."""

    released: str = key(NOTHING, "folder of the released teacher, from which student and critic start too")
    real_score: str = key(NOTHING, "folder of a larger model, or of two experts, that gives the real score instead")
    boundary: float = key(0.875, "sigma at and above which the high-noise expert is used (Wan2.2 T2V A14B)")
    steps: int = key(800, "optimizer steps")
    batch: int = key(24, "clips per step")
    muon_lr: float = key(2e-2, "learning rate of Muon, for the blocks' matrices")
    adamw_lr: float = key(3e-3, "learning rate of AdamW, for all other parameters")
    weight_decay: float = key(0.1, "weight decay of the blocks' matrices")
    warmup: int = key(50, "steps of linear warm-up")
    lr_decay_fraction: float = key(0.3, "learning rates decay linearly to 0 over this last fraction of the steps")
    ema: float = key(0.99, "decay of the weights' average, which is the teacher")
    drop_prompt: float = key(0.1, "share of clips trained without prompt, for classifier-free guidance")
    checkpoint_every: int = key(100, "steps between checkpoints")
    sheet_every: int = key(200, "steps between sample sheets")

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
