"""Parameters of the distill stage."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.gates import Gate

OBJECTIVES = ("dmd",)  # files of src/filmstill/objectives


@dataclass
class Distill:
    """Self-Forcing distillation with one of OBJECTIVES."""

    objective: str = "dmd"  # a file of src/filmstill/objectives
    steps: int = 80  # each: critic_updates of the critic, then one of the generator
    batch: int = 16
    lr: float = 2e-4
    critic_lr: float = 2e-4
    lr_decay_fraction: float = 0.4  # of the updates, at the end, down to 0
    critic_updates: int = 3  # for every generator update
    beta1: float = 0.0
    beta2: float = 0.99
    weight_decay: float = 0.01
    max_grad_norm: float = 10.0
    ema: float = 0.97
    ema_start: int = 0  # updates before the average begins: until then it is the generator itself
    guidance_scale: float = 3.0  # of the real score, uncond + w*(cond - uncond)
    checkpoint_every: int = 5
    sheet_every: int = 20
    gate: Gate = field(default_factory=lambda: Gate(min_all_attributes=0.85))

    def __post_init__(self) -> None:
        require(self.objective in OBJECTIVES, "objective", self.objective, f"one of {', '.join(OBJECTIVES)}")
        require(
            self.guidance_scale >= 0, "guidance_scale", self.guidance_scale, "0 or a positive weight: 1 is no guidance"
        )
        for name in ("steps", "batch", "critic_updates", "checkpoint_every", "sheet_every"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        for name in ("lr", "critic_lr", "max_grad_norm"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        for name in ("beta1", "beta2", "ema"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number in [0, 1)")
        require(0 <= self.lr_decay_fraction < 1, "lr_decay_fraction", self.lr_decay_fraction, "a share in [0, 1)")
        require(self.ema_start >= 0, "ema_start", self.ema_start, "0 or more updates")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or a positive number")
