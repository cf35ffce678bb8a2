"""Clips that the student generates in training by its own rollout (Self Forcing, arXiv:2506.08009, algorithm 1).

The rollout is the one of inference (`diffusion.rollout`). It may be longer than a clip: then the loss is on its last
frames, a window of a clip's length that the teacher and the critic see as a clip, and the blocks before the window are
its context only. So the student trains on contexts and positions that only a stream has.

In a share of the longer rollouts (`distill.prompt_switch`) the prompt changes at a block before the window or at its
start (LongLive, arXiv:2509.22622): teacher and critic see the prompt after the change.

Prompts, noise, window, exit steps and score times are random numbers addressed by step, update and sample.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstill.diffusion.rollout import RolloutConfig, TextAt, rollout
from filmstill.models.dit import VideoDiT
from filmstill.models.prompts_by_frame import TextKV
from filmstill.models.sharding import gathered
from filmstill.models.text import TextEncoder
from filmstill.objectives.denoising import Draw
from filmstill.params.distill import Distill
from filmstill.runtime import randomness
from filmstill.runtime.stopwatch import part
from filmstill.training.given_clips import GivenClips


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
        prompt_switch: float = 0.0,
        exit_per_block: bool = False,
        given: GivenClips | None = None,
    ) -> None:
        """latent_shape: (F, C, H, W) of a clip. batch: samples per update, over all ranks.

        prompt_switch: share of the rollouts longer than a clip whose prompt changes. exit_per_block: draw an exit step
        for every block. given: clips that a share of the updates begins with.
        """
        self.generator = generator
        self.rollout_config = rollout_config
        self.encoder = encoder
        self.prompts = prompts
        self.latent_shape = latent_shape
        self.seed = seed
        self.batch = batch
        self.windows = windows
        self.prompt_switch = prompt_switch
        self.exit_per_block = exit_per_block
        self.given = given

    def prepare_text(self, updates: Iterable[tuple[int, str]]) -> None:
        """Encode only the prompts that these (step, update) draw: Wan's profile draws 46,080 times from 250,000."""
        drawn = {prompt for index, update in updates for prompt in self._all_prompts(index, update)}
        self.encoder.prepare(sorted(drawn))

    def generate(self, index: int, update: str, samples: range) -> tuple[Tensor, Tensor]:
        """Roll out the current generator to the end of the update's window.

        Returns the window's latents [B, F, C, H, W] and the text [B, text_len, text_dim]. In grad mode the latents
        carry the generator's graph. samples: indices within the batch.
        """
        purpose, device, (clip_frames, *frame) = f"distill/{update}", self.generator.device, self.latent_shape
        start = self.window_start(index, update)
        frames, attention = start + clip_frames, self.rollout_config.attention
        with part("data"):
            text, given = self._encoded(self.prompts_of(index, update), samples), self._given(index, update, samples)
            shape = (self.rollout_config.noises, frames, *frame)
            noise = randomness.normal(shape, self.seed, f"{purpose}/rollout", index, samples).to(device)
        with part("rollout"), gathered(self.generator):
            text_kv, exits = self.generator.read_text(text), self.exit_steps(index, update)
            text_at = self._changing(text_kv, index, update, samples)
            blocks = rollout(self.generator, text_at, noise, self.rollout_config, exits, (start, frames), given)
            numbered = zip(attention.blocks(frames), blocks, strict=True)  # lazy: no block before the window is kept
            # Where the first frame is a block by itself, a window begins with the last frame of the block before it.
            return torch.cat([block for (_, end), block in numbered if end > start], dim=1)[:, -clip_frames:], text

    def _changing(self, text: TextKV, index: int, update: str, samples: range) -> TextAt:
        """The prompt of every block: `text`, and another one before a change of prompt."""
        switch = self.switch_frame(index, update)
        if switch is None:
            return lambda _: text
        with torch.no_grad():
            before = self.generator.read_text(self._encoded(self.first_prompts(index, update), samples))
        return lambda frame: before if frame < switch else text

    def _encoded(self, prompts: list[str], samples: range) -> Tensor:
        """Token vectors of the samples' prompts, of a batch with these."""
        return self.encoder.encode([prompts[sample] for sample in samples]).to(self.generator.device)

    def given_frames(self, index: int, update: str) -> int:
        """Number of frames that the update's rollouts begin with; 0: none."""
        return self.given.draw(self.seed, f"distill/{update}", index) if self.given else 0

    def _given(self, index: int, update: str, samples: range) -> Tensor | None:
        """The samples' given frames [B, G, C, H, W], or None."""
        count = self.given_frames(index, update)
        if self.given is None or not count:
            return None
        chosen = self._given_clips(self.given, index, update)
        return self.given.frames([chosen[sample] for sample in samples], count).to(self.generator.device)

    def window_start(self, index: int, update: str) -> int:
        """First frame of the window that the loss is on, the same for every sample of an update: the rollout's length
        is this and a clip's. All ranks therefore run the same passes."""
        return self.windows.draw(self.seed, f"distill/{update}", index)

    def switch_frame(self, index: int, update: str) -> int | None:
        """First frame of the block at which the prompt changes, or None: one before the window, or its first."""
        purpose, start = f"distill/{update}/switch", self.window_start(index, update)
        if not start or not self.prompt_switch:
            return None
        if float(randomness.uniform(self.seed, purpose, index, [0])) >= self.prompt_switch:
            return None
        later = [first for first, _ in self.rollout_config.attention.blocks(start + 1) if first]
        return later[int(randomness.integers(len(later), (), self.seed, f"{purpose}/block", index, [0]))]

    def exit_steps(self, index: int, update: str) -> list[int]:
        """`exit_step` of every block of the rollout; those of blocks before the window are not used."""
        frames = self.window_start(index, update) + self.latent_shape[0]
        count = self.rollout_config.attention.block_count(frames)
        if not self.exit_per_block:
            return [self.exit_step(index, update)] * count
        return [self.exit_step(index, f"{update}/block{block}") for block in range(count)]

    def exit_step(self, index: int, update: str) -> int:
        """Index, from 0, of the denoising step whose prediction leaves the rollout.

        Uniform, the same for every sample and, unless exit_per_block, every block of an update (Self Forcing, algorithm
        1, which counts s from 1).
        """
        drawn = randomness.integers(
            len(self.rollout_config.sigmas), (), self.seed, f"distill/{update}/exit", index, [0]
        )
        return int(drawn)

    def drawn_prompts(self, index: int, update: str) -> list[int]:
        """Indices of a batch's prompts."""
        return randomness.batch_indices(len(self.prompts), self.seed, f"distill/{update}/prompts", index, self.batch)

    def prompts_of(self, index: int, update: str) -> list[str]:
        """The batch's prompts, which the loss is under: those drawn, or, if no prompt changes, those of given clips."""
        drawn = [self.prompts[number] for number in self.drawn_prompts(index, update)]
        return drawn if self.switch_frame(index, update) is not None else self._given_prompts(index, update) or drawn

    def first_prompts(self, index: int, update: str) -> list[str]:
        """The batch's prompts before a change of prompt: those of given clips, or others drawn."""
        purpose = f"distill/{update}/first_prompts"
        drawn = randomness.batch_indices(len(self.prompts), self.seed, purpose, index, self.batch)
        return self._given_prompts(index, update) or [self.prompts[number] for number in drawn]

    def _given_prompts(self, index: int, update: str) -> list[str]:
        """Prompts of the clips that are given; empty if none are."""
        if self.given is None or not self.given_frames(index, update):
            return []
        return [self.given.pairs.prompts[number] for number in self._given_clips(self.given, index, update)]

    def _given_clips(self, given: GivenClips, index: int, update: str) -> list[int]:
        """Indices of the clips of a batch."""
        return given.chosen(self.seed, f"distill/{update}", index, self.batch)

    def _all_prompts(self, index: int, update: str) -> list[str]:
        """All prompts of an update."""
        switches = self.switch_frame(index, update) is not None
        return self.prompts_of(index, update) + (self.first_prompts(index, update) if switches else [])

    def draw(self, index: int, update: str, samples: range) -> Draw:
        """The score's times and noise for these samples."""
        device, purpose = self.generator.device, f"distill/{update}"
        with part("data"):
            return Draw(
                randomness.uniform(self.seed, f"{purpose}/time", index, samples).to(device),
                randomness.normal(self.latent_shape, self.seed, f"{purpose}/noise", index, samples).to(device),
            )
