"""The section `distill` of params.yaml."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.gates import Gate
from filmstill.params.keys import key

OBJECTIVES = ("dmd",)  # files of src/filmstill/objectives


@dataclass
class Distill:
    """Self-Forcing distillation of the student (arXiv:2506.08009)."""

    objective: str = key("dmd", f"file of src/filmstill/objectives that gives the losses: {' or '.join(OBJECTIVES)}")
    steps: int = key(80, "training steps: critic_updates of the critic, then one update of the generator")
    batch: int = key(16, "samples per update, over all ranks")
    lr: float = key(2e-4, "learning rate of the generator")
    critic_lr: float = key(2e-4, "learning rate of the critic")
    lr_decay_fraction: float = key(0.4, "learning rates decay linearly to 0 over this last fraction of the steps")
    critic_updates: int = key(3, "critic updates per generator update")
    beta1: float = key(0.0, "AdamW's beta1")
    beta2: float = key(0.99, "AdamW's beta2")
    weight_decay: float = key(0.01, "AdamW's weight decay")
    max_grad_norm: float = key(10.0, "gradients are clipped to this norm")
    ema: float = key(0.97, "decay of the generator's average, which is the student")
    ema_start: int = key(0, "step at which the average starts; before it the student is the generator itself")
    guidance_scale: float = key(3.0, "weight w of the real score's guidance, uncond + w * (cond - uncond)")
    checkpoint_every: int = key(5, "steps between checkpoints")
    sheet_every: int = key(20, "steps between sample sheets")
    gate: Gate = field(default_factory=lambda: Gate(min_all_attributes=0.85))

    def __post_init__(self) -> None:
        require(self.objective in OBJECTIVES, "objective", self.objective, f"one of {', '.join(OBJECTIVES)}")
        scale = self.guidance_scale
        require(scale >= 0, "guidance_scale", scale, "0 or a positive weight: 1 is no guidance")
        for name in ("steps", "batch", "critic_updates", "checkpoint_every", "sheet_every"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("lr", "critic_lr", "max_grad_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        for name in ("beta1", "beta2", "ema"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number in [0, 1)")
        require(0 <= self.lr_decay_fraction < 1, "lr_decay_fraction", self.lr_decay_fraction, "a share in [0, 1)")
        require(self.ema_start >= 0, "ema_start", self.ema_start, "0 or more steps")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or a positive number")
