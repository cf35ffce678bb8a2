"""Preview of a student in training: samples and streams of a few train prompts, as a sheet and as scores.

The open world has no judge of what a clip shows, so its previews have no score.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstill.artifacts import TRAIN_PROMPTS
from filmstill.diffusion.rollout import RolloutConfig, rollout, rollout_stream
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
    stream_frames: latent frames of the stream that is scored; None: no stream is.
    """

    attributes: list[Attributes] | None
    texts: Tensor
    codec: Codec
    world: World
    rollout_config: RolloutConfig
    latent_shape: tuple[int, int, int, int]  # F, C, H, W
    seed: int
    stream_frames: int | None = None

    @classmethod
    def of(cls, setup: Setup, gate: Gate, stage: str) -> "Preview":
        """Samples of the first `gate.prompts` train prompts."""
        prompts = load_prompts(TRAIN_PROMPTS, gate.prompts, f"{stage}.gate.prompts")
        attributes = parse_all(prompts["prompt"].tolist(), TRAIN_PROMPTS) if setup.world.name == EMBEDDED else None
        texts = setup.encoded(prompts["text"].tolist())
        return cls(
            attributes,
            texts,
            setup.codec(),
            setup.world,
            setup.rollout_config,
            setup.latent_shape,
            setup.seed,
            gate.stream_frames,
        )

    def save_sheet(self, model: VideoDiT, path: Path) -> None:
        """Write the samples of the first SHEET_ROWS prompts to `path`.

        Collective: every rank must call it, since the network may be sharded over them.
        """
        video = self._video(model, SHEET_ROWS).cpu()
        if is_rank0():
            save_sheet(video, path)

    @torch.no_grad()
    def score(self, model: VideoDiT) -> dict[str, Any]:
        """`all_attributes`: share of clips that show every attribute of their prompt; {} in the open world.

        With a stream also `stream_windows`, the same share in each of its windows, and `stream`, that of the worst.
        Collective: every rank must call it.
        """
        if self.attributes is None:
            return {}
        scores: dict[str, Any] = {"all_attributes": self._share_right(self._video(model, len(self.attributes)))}
        if self.stream_frames is not None:
            shares = [self._share_right(window) for window in self._stream_windows(model, self.stream_frames)]
            scores |= {"stream": min(shares), "stream_windows": shares}
        return broadcast(scores)

    def _share_right(self, video: Tensor) -> float:
        """Share of clips [N, F, 3, height, width] that show every attribute that their prompt names."""
        assert self.attributes is not None  # the open world has no judge
        return judge(video, self.attributes, self.world).all_right.float().mean().item()

    def _stream_windows(self, model: VideoDiT, frames: int) -> Iterator[Tensor]:
        """Every whole window of a clip's length of one stream, decoded.

        One window is in memory at a time: noise, rollout and codec work on from block to block.
        """
        length, *frame = self.latent_shape
        samples = range(len(self.texts))

        def noise(start: int, end: int) -> Tensor:
            shape = (self.rollout_config.noises, end - start, *frame)
            return randomness.normal(shape, self.seed, "probe/stream", start, samples).to(model.device)

        prompts = model.read_text(self.texts)
        blocks = rollout_stream(model, lambda _: prompts, noise, frames, self.rollout_config)
        made = next(blocks)
        for _ in range(frames // length):
            while made.shape[1] < length:
                made = torch.cat([made, next(blocks)], dim=1)
            yield self.codec.decode(made[:, :length])
            made = made[:, length:]

    @torch.no_grad()
    def _video(self, model: VideoDiT, count: int) -> Tensor:
        """Samples of the first `count` prompts, [B, frames, 3, height, width] in [0, 1]."""
        texts = self.texts[:count]
        shape = (self.rollout_config.noises, *self.latent_shape)
        # "probe" is an address of random numbers: another one would change every preview and its score.
        noise = randomness.normal(shape, self.seed, "probe", 0, range(len(texts))).to(model.device)
        blocks = rollout(model, model.read_text(texts), noise, self.rollout_config)
        return self.codec.decode(torch.cat(list(blocks), dim=1))
