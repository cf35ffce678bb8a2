"""A student that streams: loaded from its files, it yields pixels block by block, with the rollout of its training."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import CODEC, STUDENT, TEXT
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError, require
from filmstill.models.codec import Codec
from filmstill.models.dit import VideoDiT
from filmstill.models.load import frozen, load_codec, load_encoder
from filmstill.models.text import TextEncoder
from filmstill.models.weights import load_model
from filmstill.params.compute import Compute
from filmstill.params.student import Student
from filmstill.params.text import Text


@dataclass(frozen=True)
class Files:
    """Files of a student: its weights, the codec, and the folder of the text encoder."""

    student: Path = STUDENT
    codec: Path = CODEC
    text: Path = TEXT


@dataclass(frozen=True)
class Streamer:
    """A student, its codec and text encoder, and its rollout. latent_shape: (F, C, H, W) of a clip."""

    model: VideoDiT
    codec: Codec
    encoder: TextEncoder
    rollout_config: RolloutConfig
    latent_shape: tuple[int, int, int, int]
    fps: int

    @classmethod
    def load(cls, files: Files, device: str, fast: bool) -> "Streamer":
        """Load the student, in float32 on the CPU and in bfloat16 on a GPU. fast: decode with the small decoder.

        Raises FilmstillError for a file that is not a student.
        """
        model, facts = load_model(files.student)
        if "fps" not in facts:
            raise FilmstillError(f"{files.student}: is not a student (its header has no rollout); use {STUDENT}")
        config = RolloutConfig.of(FlowSchedule(facts["shift"]), Student.of(facts, str(files.student)))
        compute = Compute(device=device, precision="bfloat16" if device == "cuda" else "float32")
        encoder = load_encoder(Text(placement="gpu" if device == "cuda" else "cpu"), compute, files.text)
        codec = load_codec(compute, files.codec, fast)
        return cls(frozen(model, compute), codec, encoder, config, tuple(facts["latent_shape"]), facts["fps"])

    def with_stream(self, frames: int | None, window: int | None) -> "Streamer":
        """The same student for clips of `frames` latent frames under a local `window`; None: as trained.

        Raises FilmstillError for values that the student's blocks do not allow.
        """
        attention = self.rollout_config.attention
        frames = self.latent_shape[0] if frames is None else frames
        allowed = f"a positive multiple of the student's block of {attention.block_frames} frames"
        require(frames > 0 and frames % attention.block_frames == 0, "--frames", frames, allowed)
        if window is not None:
            least = attention.min_window
            require(window >= least, "--window", window, f"at least the student's sink + block = {least} frames")
            attention = replace(attention, window_frames=window)
        shape = (frames, *self.latent_shape[1:])
        return replace(self, rollout_config=replace(self.rollout_config, attention=attention), latent_shape=shape)

    @torch.no_grad()
    def stream(self, prompt: str, seed: int) -> Iterator[Tensor]:
        """Generate one clip block by block: pixels [frames of the block, 3, H, W] in [0, 1] on the CPU."""
        device = self.model.device
        noise = clip_noise([prompt], [seed], self.rollout_config.noises, self.latent_shape).to(device)
        text = self.model.read_text(self.encoder.encode([prompt]).to(device))
        for block in self.codec.decode_stream(rollout(self.model, text, noise, self.rollout_config)):
            yield block[0].cpu()
