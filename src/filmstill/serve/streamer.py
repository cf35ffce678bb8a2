"""A student that streams: loaded from its files, it yields pixels block by block, with the rollout of its training."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import CODEC, STUDENT, TEXT
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import rollout_stream
from filmstill.models.codec import Codec
from filmstill.models.dit import VideoDiT
from filmstill.models.load import frozen, load_codec, load_encoder
from filmstill.models.prompts_by_frame import TextKV
from filmstill.models.text import TextEncoder
from filmstill.models.weights import load_model
from filmstill.params.compute import Compute
from filmstill.params.text import Text
from filmstill.serve.prompt_schedule import PromptSchedule
from filmstill.serve.stream_config import StreamConfig


@dataclass(frozen=True)
class Files:
    """Files of a student: its weights, the codec, and the folder of the text encoder."""

    student: Path = STUDENT
    codec: Path = CODEC
    text: Path = TEXT

    def paths(self) -> list[Path]:
        """Every one of these files."""
        return [self.student, self.codec, *sorted(file for file in self.text.rglob("*") if file.is_file())]


def compute_on(device: str) -> Compute:
    """How a student is served: in float32 on the CPU and in bfloat16 on a GPU."""
    return Compute(device=device, precision="bfloat16" if device == "cuda" else "float32")


@dataclass(frozen=True)
class Streamer:
    """A student, its codec and text encoder, and what it streams."""

    model: VideoDiT
    codec: Codec
    encoder: TextEncoder
    config: StreamConfig

    @classmethod
    def load(cls, files: Files, config: StreamConfig, compute: Compute, fast: bool) -> "Streamer":
        """Load a student that streams `config`, of its own header. fast: decode with the small decoder.

        Raises FilmstillError for a damaged file.
        """
        encoder = load_encoder(Text(placement="gpu" if compute.device == "cuda" else "cpu"), compute, files.text)
        codec = load_codec(compute, files.codec, fast)
        return cls(frozen(load_model(files.student)[0], compute), codec, encoder, config)

    @torch.no_grad()
    def stream(self, prompts: PromptSchedule, seed: int, given: Tensor | None = None) -> Iterator[Tensor]:
        """Generate one clip block by block: pixels [frames of the block, 3, H, W] in [0, 1] on the CPU.

        given: latents of its first frames, [1, G, C, h, w]. The noise is that of the first prompt, whatever comes
        after it. It is made per block, so under a local window the memory does not depend on the clip's length.
        """
        device, rollout, frame = self.model.device, self.config.rollout, self.config.latent_shape[1:]

        def noise(start: int, end: int) -> Tensor:
            shape = (end - start, *frame)
            return clip_noise([prompts.prompts[0]], [seed], rollout.noises, shape, start).to(device)

        def read(prompt: str) -> TextKV:
            return self.model.read_text(self.encoder.encode([prompt]).to(device))

        start = None if given is None else given.to(device)
        blocks = rollout_stream(self.model, prompts.text_at(read), noise, self.config.frames, rollout, given=start)
        for block in self.codec.decode_stream(blocks):
            yield block[0].cpu()
