"""The section `ode_init` of params.yaml."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.gates import Gate
from filmstill.params.keys import check_intervals, key

LOSSES = ("velocity", "x0")


@dataclass
class OdeInit:
    """Regression of the teacher's clips from its ODE trajectories, causally (CausVid, arXiv:2412.07772)."""

    steps: int = key(1800, "optimizer steps", "[1, 100000000]")
    batch: int = key(8, "samples per step, over all ranks", "[1, 65536]")
    muon_lr: float | None = key(
        6e-3, "learning rate of Muon, for the blocks' matrices; null: AdamW trains them too", "(0, 10]"
    )
    adamw_lr: float = key(1.5e-3, "learning rate of AdamW, for all other parameters", "(0, 10]")
    beta1: float = key(0.9, "AdamW's beta1", "[0, 1)")
    beta2: float = key(0.999, "AdamW's beta2", "[0, 1)")
    loss: str = key(
        "velocity", "squared error of the predicted velocity or x0; velocity's gives fine detail more weight"
    )
    weight_decay: float = key(0.0, "weight decay of Muon, or of AdamW where muon_lr is null", "[0, 100]")
    max_grad_norm: float = key(1.0, "gradients are clipped to this norm", "(0, 1e12]")
    warmup: int = key(10, "steps of linear warm-up", "[0, 100000000]")
    lr_decay_fraction: float = key(
        0.5, "learning rates decay linearly to 0 over this last fraction of the steps", "[0, 1)"
    )
    checkpoint_every: int = key(50, "steps between checkpoints", "[1, 100000000]")
    sheet_every: int = key(300, "steps between sample sheets", "[1, 100000000]")
    clips: int = key(
        2,
        "copies of a trajectory in one sequence; above 1 rests on the world's loop, that a clip ends where it begins",
        "[1, 100]",
    )
    clean_share: float = key(
        0.4, "share of blocks but the last that are set to the clean end, which a rollout's context is", "[0, 1)"
    )
    given: float = key(
        0.25,
        "share of samples whose first frame is set to the clean end, as a picture that a stream begins with",
        "[0, 1]",
    )
    prompt_switch: float = key(
        0.35,
        "share of samples that go on as another pair, under its prompt, from a block on that is drawn for the batch; "
        "their context is that of student.prompt_change keep",
        "[0, 1]",
    )
    gate: Gate = field(default_factory=lambda: Gate(min_all_attributes=0.5, max_loss_ratio=0.8))

    def __post_init__(self) -> None:
        check_intervals(self)
        require(self.loss in LOSSES, "loss", self.loss, f"one of {', '.join(LOSSES)}")
