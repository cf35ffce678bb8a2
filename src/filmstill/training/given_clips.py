"""Given frames of rollouts in training: the first frames of the teacher's clips, from the ODE pairs' clean ends.

A student that is served with a picture or a clip to go on from has met both in training (`distill.given`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from filmstill.models.attention import BlockCausal
from filmstill.params.distill import Distill
from filmstill.runtime import randomness
from filmstill.training.pairs import Pairs


@dataclass(frozen=True)
class GivenClips:
    """Clips of the teacher, and which share of updates begins with their first frames.

    lengths: numbers of frames that may be given, equally likely: one, as of a picture, or whole blocks.
    """

    pairs: Pairs
    share: float
    lengths: Sequence[int]

    @classmethod
    def of(cls, params: Distill, pairs: Pairs, attention: BlockCausal) -> "GivenClips":
        """One frame, or any number of blocks that leaves at least one of a clip to make."""
        ends = [end for _, end in attention.blocks(pairs.shape[0])][:-1]
        return cls(pairs, params.given, sorted({1, *ends}))

    def draw(self, seed: int, purpose: str, step: int) -> int:
        """Number of frames that are given in an update, the same for all its samples; 0: none."""
        if not self.share or float(randomness.uniform(seed, f"{purpose}/given", step, [0])) >= self.share:
            return 0
        return self.lengths[int(randomness.integers(len(self.lengths), (), seed, f"{purpose}/given_frames", step, [0]))]

    def chosen(self, seed: int, purpose: str, step: int, batch: int) -> list[int]:
        """Indices of the batch's clips; their prompts are those of the update."""
        return randomness.batch_indices(len(self.pairs.prompts), seed, f"{purpose}/given_clips", step, batch)

    def frames(self, rows: list[int], count: int) -> Tensor:
        """The first `count` frames of these clips, [len(rows), count, C, H, W], float32."""
        clean = len(self.pairs.sigmas) - 1
        return self.pairs.trajectories(rows, [clean])[:, 0, :count].float()
