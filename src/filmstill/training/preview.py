"""Preview of a student in training: samples of a few train prompts, as a sheet and as a score.

The open world has no judge of what a clip shows, so its previews have no score.
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
from filmstill.params.world import EMBEDDED, World
from filmstill.prompts.store import load_prompts
from filmstill.runtime import randomness
from filmstill.runtime.distributed import broadcast, is_rank0
from filmstill.runtime.image import save_sheet
from filmstill.training.setup import Setup
from filmstill.worlds.grammar import Attributes, parse_all
from filmstill.worlds.judge import judge

SHEET_ROWS = 6


@dataclass(frozen=True)
class Preview:
    """N prompts and all that sampling them needs.

    attributes: what each prompt asks for (None: unknown). texts: encoded prompts [N, text_len, text_dim].
    """

    attributes: list[Attributes] | None
    texts: Tensor
    codec: Codec
    world: World
    rollout_config: RolloutConfig
    latent_shape: tuple[int, int, int, int]  # F, C, H, W
    seed: int

    @classmethod
    def of(cls, setup: Setup, gate: Gate, stage: str) -> "Preview":
        """Samples of the first `gate.prompts` train prompts."""
        prompts = load_prompts(TRAIN_PROMPTS, gate.prompts, f"{stage}.gate.prompts")
        attributes = parse_all(prompts["prompt"].tolist(), TRAIN_PROMPTS) if setup.world.name == EMBEDDED else None
        texts = setup.encoded(prompts["text"].tolist())
        return cls(attributes, texts, setup.codec(), setup.world, setup.rollout_config, setup.latent_shape, setup.seed)

    def save_sheet(self, model: VideoDiT, path: Path) -> None:
        """Write the samples of the first SHEET_ROWS prompts to `path`.

        Collective: every rank must call it, since the network may be sharded over them.
        """
        video = self._video(model, SHEET_ROWS).cpu()
        if is_rank0():
            save_sheet(video, path)

    def score(self, model: VideoDiT) -> dict[str, float]:
        """`all_attributes`: share of clips whose symbol, colour and motion are all right; {} in the open world.

        Collective: every rank must call it.
        """
        if self.attributes is None:
            return {}
        judged = judge(self._video(model, len(self.attributes)), self.attributes, self.world)
        return broadcast({"all_attributes": judged.all_right.float().mean().item()})

    @torch.no_grad()
    def _video(self, model: VideoDiT, count: int) -> Tensor:
        """Samples of the first `count` prompts, [B, frames, 3, height, width] in [0, 1]."""
        texts = self.texts[:count]
        shape = (self.rollout_config.noises, *self.latent_shape)
        # "probe" is an address of random numbers: another one would change every preview and its score.
        noise = randomness.normal(shape, self.seed, "probe", 0, range(len(texts))).to(model.device)
        blocks = rollout(model, model.read_text(texts), noise, self.rollout_config)
        return self.codec.decode(torch.cat(list(blocks), dim=1))
