"""The section `distill` of params.yaml."""

from dataclasses import dataclass, field

from filmstill.errors import require
from filmstill.params.gates import Gate
from filmstill.params.keys import check_intervals, key

GENERATOR = "generator"  # the name of a step's last update
OBJECTIVES = ("dmd",)  # files of src/filmstill/objectives


@dataclass
class Distill:
    """Self-Forcing distillation of the student (arXiv:2506.08009)."""

    objective: str = key("dmd", f"file of src/filmstill/objectives that gives the losses: {' or '.join(OBJECTIVES)}")
    steps: int = key(
        50, "training steps: critic_updates of the critic, then one update of the generator", "[1, 100000000]"
    )
    batch: int = key(16, "samples per update, over all ranks", "[1, 65536]")
    lr: float = key(1e-4, "learning rate of the generator", "(0, 10]")
    critic_lr: float = key(3e-4, "learning rate of the critic", "(0, 10]")
    lr_decay_fraction: float = key(
        0.6, "learning rates decay linearly to 0 over this last fraction of the steps", "[0, 1)"
    )
    rollout_frames: int | None = key(
        36, "longest rollout in training, in latent frames; null: a clip's length, world.frames", "[3, 1000]"
    )
    first_window_share: float = key(
        0.25,
        "share of updates with a rollout of a clip's length; the others' are longer, with the loss on the last clip",
        "[0, 1]",
    )
    carry_on: bool = key(
        False,
        "true: a step generates the clip after that of the step before, until a stream has rollout_frames, whatever "
        "first_window_share; false: every update begins a stream",
    )
    prompt_switch: float = key(
        0.4,
        "share of the rollouts longer than a clip whose prompt changes at a block before the loss or at its first",
        "[0, 1]",
    )
    given: float = key(
        0.15,
        "share of the updates that begin a stream whose rollouts begin with given frames, one or whole blocks of the "
        "teacher's clips, as a stream begins with a picture or a clip",
        "[0, 1]",
    )
    exit_per_block: bool = key(
        False, "true: every block of a rollout leaves at a denoising step of its own, false: all at one"
    )
    critic_updates: int = key(2, "critic updates per generator update", "[1, 1000]")
    beta1: float = key(0.0, "AdamW's beta1", "[0, 1)")
    beta2: float = key(0.99, "AdamW's beta2", "[0, 1)")
    weight_decay: float = key(0.01, "AdamW's weight decay", "[0, 100]")
    max_grad_norm: float = key(10.0, "gradients are clipped to this norm", "(0, 1e12]")
    ema: float = key(0.95, "decay of the generator's average, which is the student", "[0, 1)")
    ema_start: int = key(
        0, "step at which the average starts; before it the student is the generator itself", "[0, 100000000]"
    )
    guidance_scale: float = key(1.5, "weight w of the real score's guidance, uncond + w * (cond - uncond)", "[0, 1000]")
    checkpoint_every: int = key(5, "steps between checkpoints", "[1, 100000000]")
    sheet_every: int = key(20, "steps between sample sheets", "[1, 100000000]")
    gate: Gate = field(default_factory=lambda: Gate(min_all_attributes=0.85, stream_frames=60, min_stream=0.8))

    def __post_init__(self) -> None:
        check_intervals(self)
        if self.carry_on:
            allowed = "the length of a stream where distill.carry_on is true"
            require(self.rollout_frames is not None, "rollout_frames", self.rollout_frames, allowed)
        require(self.objective in OBJECTIVES, "objective", self.objective, f"one of {', '.join(OBJECTIVES)}")

    def critics(self) -> list[str]:
        """The names of a step's critic updates."""
        return [f"critic{number}" for number in range(self.critic_updates)]

    def updates(self) -> list[str]:
        """The names of a step's updates, in order."""
        return [*self.critics(), GENERATOR]
