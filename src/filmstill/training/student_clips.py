"""Clips that the student generates in training by its own rollout (Self Forcing, arXiv:2506.08009, algorithm 1).

The rollout is the one of inference (`diffusion.rollout`). It may be longer than a clip: then the loss is on its last
frames, a window of a clip's length that the teacher and the critic see as a clip, and the blocks before the window are
its context only. So the student trains on contexts and positions that only a stream has.

Prompts, noise, window, exit step and score times are random numbers addressed by step, update and sample.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.models.dit import VideoDiT
from filmstill.models.sharding import gathered
from filmstill.models.text import TextEncoder
from filmstill.objectives.denoising import Draw
from filmstill.params.distill import Distill
from filmstill.runtime import randomness
from filmstill.runtime.stopwatch import part


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


class StudentClips:
    """Draws what every update trains on: the student's clips, and times and noise for the scores.

    An update has a name, "critic0", … or "generator", in the step `index`.
    """

    def __init__(
        self,
        generator: VideoDiT,
        rollout_config: RolloutConfig,
        encoder: TextEncoder,
        prompts: list[str],
        latent_shape: tuple[int, int, int, int],
        seed: int,
        batch: int,
        windows: LossWindows = LossWindows(),
    ) -> None:
        """latent_shape: (F, C, H, W) of a clip. batch: samples per update, over all ranks."""
        self.generator = generator
        self.rollout_config = rollout_config
        self.encoder = encoder
        self.prompts = prompts
        self.latent_shape = latent_shape
        self.seed = seed
        self.batch = batch
        self.windows = windows

    def prepare_text(self, updates: Iterable[tuple[int, str]]) -> None:
        """Encode only the prompts that these (step, update) draw: Wan's profile draws 46,080 times from 250,000."""
        drawn = {number for index, update in updates for number in self.drawn_prompts(index, update)}
        self.encoder.prepare([self.prompts[number] for number in sorted(drawn)])

    def generate(self, index: int, update: str, samples: range) -> tuple[Tensor, Tensor]:
        """Roll out the current generator to the end of the update's window.

        Returns the window's latents [B, F, C, H, W] and the text [B, text_len, text_dim]. In grad mode the latents
        carry the generator's graph. samples: indices within the batch.
        """
        purpose, device, (clip_frames, *frame) = f"distill/{update}", self.generator.device, self.latent_shape
        start = self.window_start(index, update)
        frames, attention = start + clip_frames, self.rollout_config.attention
        with part("data"):
            chosen = self.drawn_prompts(index, update)
            text = self.encoder.encode([self.prompts[chosen[sample]] for sample in samples]).to(device)
            shape = (self.rollout_config.noises, frames, *frame)
            noise = randomness.normal(shape, self.seed, f"{purpose}/rollout", index, samples).to(device)
        with part("rollout"), gathered(self.generator):
            text_kv, exit_step = self.generator.read_text(text), self.exit_step(index, update)
            blocks = rollout(self.generator, text_kv, noise, self.rollout_config, exit_step, (start, frames))
            numbered = zip(attention.blocks(frames), blocks, strict=True)  # lazy: no block before the window is kept
            return torch.cat([block for (first, _), block in numbered if first >= start], dim=1), text

    def window_start(self, index: int, update: str) -> int:
        """First frame of the window that the loss is on, the same for every sample of an update: the rollout's length
        is this and a clip's. All ranks therefore run the same passes."""
        return self.windows.draw(self.seed, f"distill/{update}", index)

    def exit_step(self, index: int, update: str) -> int:
        """Index, from 0, of the denoising step whose prediction leaves the rollout.

        Uniform, the same for every block and sample of an update (Self Forcing, algorithm 1, which counts s from 1).
        """
        drawn = randomness.integers(
            len(self.rollout_config.sigmas), (), self.seed, f"distill/{update}/exit", index, [0]
        )
        return int(drawn)

    def drawn_prompts(self, index: int, update: str) -> list[int]:
        """Indices of a batch's prompts."""
        return randomness.batch_indices(len(self.prompts), self.seed, f"distill/{update}/prompts", index, self.batch)

    def draw(self, index: int, update: str, samples: range) -> Draw:
        """The score's times and noise for these samples."""
        device, purpose = self.generator.device, f"distill/{update}"
        with part("data"):
            return Draw(
                randomness.uniform(self.seed, f"{purpose}/time", index, samples).to(device),
                randomness.normal(self.latent_shape, self.seed, f"{purpose}/noise", index, samples).to(device),
            )
