"""The section `teacher` of params.yaml."""

from dataclasses import dataclass

from filmstill.params.keys import check_intervals, key

NOTHING = "data/released/none"  # a folder that holds no model


@dataclass
class Teacher:
    """Where the teacher comes from: an imported release, or (from `steps` on) the embedded world's training, which an
    import does without."""

    released: str = key(NOTHING, "folder of the released teacher, from which student and critic start too")
    real_score: str = key(NOTHING, "folder of a larger model, or of two experts, that gives the real score instead")
    boundary: float = key(0.875, "sigma at and above which the high-noise expert is used (Wan2.2 T2V A14B)", "(0, 1)")
    steps: int = key(2500, "optimizer steps", "[1, 100000000]")
    batch: int = key(16, "clips per step", "[1, 65536]")
    muon_lr: float = key(2e-2, "learning rate of Muon, for the blocks' matrices", "(0, 10]")
    adamw_lr: float = key(3e-3, "learning rate of AdamW, for all other parameters", "(0, 10]")
    weight_decay: float = key(0.1, "weight decay of the blocks' matrices", "[0, 100]")
    warmup: int = key(50, "steps of linear warm-up", "[0, 100000000]")
    lr_decay_fraction: float = key(
        0.5, "learning rates decay linearly to 0 over this last fraction of the steps", "[0, 1)"
    )
    restarts: int = key(
        0, "times that all these steps are made again, each time with half the learning rates", "[0, 100]"
    )
    ema: float = key(0.99, "decay of the weights' average, which is the teacher", "[0, 1)")
    drop_prompt: float = key(0.1, "share of clips trained without prompt, for classifier-free guidance", "[0, 1)")
    open_prompts: float = key(0.15, "share of clips whose prompt leaves the colour open", "[0, 1)")
    given: float = key(
        0.0, "share of clips of which some frames are given, clean, so that it learns how frames go on", "[0, 1]"
    )
    checkpoint_every: int = key(100, "steps between checkpoints", "[1, 100000000]")
    sheet_every: int = key(500, "steps between sample sheets", "[1, 100000000]")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.steps * (1 + self.restarts)

    def __post_init__(self) -> None:
        check_intervals(self)
