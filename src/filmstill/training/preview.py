"""A look at a student in training: samples of a few train prompts, their sheet and their score.

In the open world nobody judges what a clip shows: there the score is left out.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import TRAIN_PROMPTS
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.models.codec import Codec
from filmstill.models.dit import VideoDiT
from filmstill.params.gates import Gate
from filmstill.params.world import DIGITS, World
from filmstill.prompts.store import load_prompts
from filmstill.runtime import randomness
from filmstill.runtime.distributed import broadcast, is_rank0
from filmstill.runtime.image import save_sheet
from filmstill.training.setup import Setup
from filmstill.worlds.grammar import Attributes, parse_all
from filmstill.worlds.judge import all_right

SHEET_ROWS = 6


@dataclass(frozen=True)
class Preview:
    """`shown` is what the prompts ask for (None: unknown), `texts` [N, text_len, text_dim] are their encodings."""

    shown: list[Attributes] | None
    texts: Tensor
    codec: Codec
    world: World
    rollout_config: RolloutConfig
    latent_shape: tuple[int, int, int, int]  # F, C, H, W
    seed: int

    @classmethod
    def of(cls, setup: Setup, gate: Gate, stage: str) -> "Preview":
        """Samples of the first `gate.prompts` train prompts."""
        asked = load_prompts(TRAIN_PROMPTS, gate.prompts, f"{stage}.gate.prompts")
        shown = parse_all(asked["prompt"].tolist(), TRAIN_PROMPTS) if setup.world.name == DIGITS else None
        texts = setup.encoded(asked["text"].tolist())
        return cls(shown, texts, setup.codec(), setup.world, setup.rollout_config, setup.latent_shape, setup.seed)

    def save_sheet(self, model: VideoDiT, path: Path) -> None:
        """Every process of a job must ask: the network may lie on all of them."""
        video = self._video(model, SHEET_ROWS).cpu()
        if is_rank0():
            save_sheet(video, path)

    def score(self, model: VideoDiT) -> dict[str, float]:
        """`all_attributes`: share of clips whose digit, colour and motion are all right; {} where nobody can tell."""
        if self.shown is None:
            return {}
        right = all_right(self._video(model, len(self.shown)), self.shown, self.world)
        return broadcast({"all_attributes": right.all(dim=1).float().mean().item()})

    @torch.no_grad()
    def _video(self, model: VideoDiT, count: int) -> Tensor:
        texts = self.texts[:count]
        shape = (self.rollout_config.noises, *self.latent_shape)
        noise = randomness.normal(shape, self.seed, "probe", 0, range(len(texts))).to(model.device)
        return self.codec.decode(
            torch.cat(list(rollout(model, model.read_text(texts), noise, self.rollout_config)), dim=1)
        )
