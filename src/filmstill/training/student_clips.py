"""Clips that the student generates in training by its own rollout (Self Forcing, arXiv:2506.08009, algorithm 1).

The rollout is the one of inference (`diffusion.rollout`). Prompts, noise, exit step and score times are random numbers
addressed by step, update and sample.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.models.dit import VideoDiT
from filmstill.models.sharding import gathered
from filmstill.models.text import TextEncoder
from filmstill.objectives.denoising import Draw
from filmstill.runtime import randomness
from filmstill.runtime.stopwatch import part


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
    ) -> None:
        """latent_shape: (F, C, H, W). batch: samples per update, over all ranks."""
        self.generator = generator
        self.rollout_config = rollout_config
        self.encoder = encoder
        self.prompts = prompts
        self.latent_shape = latent_shape
        self.seed = seed
        self.batch = batch

    def prepare_text(self, updates: Iterable[tuple[int, str]]) -> None:
        """Encode only the prompts that these (step, update) draw: Wan's profile draws 46,080 times from 250,000."""
        drawn = {number for index, update in updates for number in self.drawn_prompts(index, update)}
        self.encoder.prepare([self.prompts[number] for number in sorted(drawn)])

    def generate(self, index: int, update: str, samples: range) -> tuple[Tensor, Tensor]:
        """Roll out the current generator: (latents [B, F, C, H, W], text [B, text_len, text_dim]).

        samples: indices within the batch. In grad mode the latents carry the generator's graph.
        """
        purpose, device = f"distill/{update}", self.generator.device
        with part("data"):
            chosen = self.drawn_prompts(index, update)
            text = self.encoder.encode([self.prompts[chosen[sample]] for sample in samples]).to(device)
            shape = (self.rollout_config.noises, *self.latent_shape)
            noise = randomness.normal(shape, self.seed, f"{purpose}/rollout", index, samples).to(device)
        with part("rollout"), gathered(self.generator):
            text_kv, exit_step = self.generator.read_text(text), self.exit_step(index, update)
            blocks = rollout(self.generator, text_kv, noise, self.rollout_config, exit_step)
            return torch.cat(list(blocks), dim=1), text

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
