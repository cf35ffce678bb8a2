"""The window of a rollout in training that an update's loss is on: a clip's length, at the rollout's end."""

from dataclasses import dataclass

from filmstill.params.distill import Distill
from filmstill.runtime import randomness


@dataclass(frozen=True)
class LossWindows:
    """Where the window that an update's loss is on may start: at frame 0, or, equally likely, at one of `later`.

    first_share: probability of the window at frame 0 if there are later ones.
    """

    later: range = range(0)
    first_share: float = 1.0

    @classmethod
    def of(cls, params: Distill, frames: int, stride: int) -> "LossWindows":
        """Windows of `frames` frames in rollouts of at most `params.rollout_frames`, at multiples of `stride`."""
        longest = frames if params.rollout_frames is None else params.rollout_frames
        return cls(range(stride, longest - frames + 1, stride), params.first_window_share)

    def shares(self) -> dict[int, float]:
        """Probability of every start that may be drawn."""
        first = self.first_share if self.later else 1.0
        shares = {0: first, **{start: (1 - first) / len(self.later) for start in self.later}}
        return {start: share for start, share in shares.items() if share > 0}

    def draw(self, seed: int, purpose: str, step: int) -> int:
        """First frame of a window; without later ones no random number is drawn."""
        if not self.later or float(randomness.uniform(seed, f"{purpose}/first_window", step, [0])) < self.first_share:
            return 0
        return self.later[int(randomness.integers(len(self.later), (), seed, f"{purpose}/window", step, [0]))]
