"""Prompts to video files with a distilled student, by the rollout that trained it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import CODEC, STUDENT, TEXT
from filmstill.diffusion.noise import clip_noise
from filmstill.diffusion.rollout import RolloutPlan, rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal
from filmstill.models.codec import Codec
from filmstill.models.dit import VideoDiT
from filmstill.models.load import frozen, load_codec, load_encoder
from filmstill.models.text import TextEncoder
from filmstill.models.weights import load_model
from filmstill.params.load import require
from filmstill.params.shared import Compute, Text
from filmstill.runtime.compute import check_device
from filmstill.runtime.progress import progress
from filmstill.runtime.video import check_format, save_video


@dataclass(frozen=True)
class Files:
    """What a student needs to be served: its weights, the codec and the text encoder's folder."""

    student: Path = STUDENT
    codec: Path = CODEC
    text: Path = TEXT


@dataclass(frozen=True)
class Streamer:
    """A student as its file describes it."""

    model: VideoDiT
    codec: Codec
    encoder: TextEncoder
    plan: RolloutPlan
    latent_shape: tuple[int, int, int, int]
    fps: int

    @classmethod
    def load(cls, files: Files, device: str, fast: bool) -> "Streamer":
        """On the CPU in float32, on a GPU in bfloat16. fast: decode by the release's small decoder."""
        model, facts = load_model(files.student)
        if not {"steps", "fps"} <= facts.keys():
            raise FilmstillError(f"{files.student}: is not a student (it says no rollout); give {STUDENT}")
        attention = BlockCausal(facts["block_frames"], facts["window_frames"], facts["sink_frames"])
        plan = RolloutPlan.of(FlowSchedule(facts["shift"]), facts["steps"], attention, facts["context_noise"])
        compute = Compute(device=device, precision="bfloat16" if device == "cuda" else "float32")
        encoder = load_encoder(Text(placement="gpu" if device == "cuda" else "cpu"), compute, files.text)
        codec = load_codec(compute, files.codec, fast)
        return cls(frozen(model, compute), codec, encoder, plan, tuple(facts["latent_shape"]), facts["fps"])

    def with_stream(self, frames: int | None, window: int | None) -> "Streamer":
        """The same student for clips of `frames` under a local `window`; None: as trained."""
        attention = self.plan.attention
        frames = self.latent_shape[0] if frames is None else frames
        allowed = f"a positive multiple of the student's block of {attention.block_frames} frames"
        require(frames > 0 and frames % attention.block_frames == 0, "--frames", frames, allowed)
        if window is not None:
            least = attention.least_window
            require(window >= least, "--window", window, f"at least the student's sink + block = {least} frames")
            attention = replace(attention, window_frames=window)
        shape = (frames, *self.latent_shape[1:])
        return replace(self, plan=replace(self.plan, attention=attention), latent_shape=shape)

    @torch.no_grad()
    def stream(self, prompt: str, seed: int) -> Iterator[Tensor]:
        """One clip, block by block: pixels [block frames, 3, H, W] in [0, 1]."""
        device = self.model.device
        noise = clip_noise([prompt], [seed], self.plan.noises, self.latent_shape).to(device)
        text = self.model.read_text(self.encoder.encode([prompt]).to(device))
        for block in self.codec.decode_stream(rollout(self.model, text, noise, self.plan)):
            yield block[0].cpu()


def generate(
    prompts: list[str],
    seeds: list[int],
    out: Path,
    files: Files,
    frames: int | None,
    window: int | None,
    device: str,
    fast: bool,
) -> None:
    """Write one video for every prompt and seed; several are numbered."""
    check_format(out)
    check_device(device, "--device")
    streamer = Streamer.load(files, device, fast).with_stream(frames, window)
    streamer.encoder.prepare(prompts)
    wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
    blocks = len(streamer.plan.attention.blocks(streamer.latent_shape[0]))
    for number, (prompt, seed) in enumerate(wanted):
        path = out if len(wanted) == 1 else out.with_stem(f"{out.stem}-{number:03d}")
        start, pieces, seconds = time.perf_counter(), [], []
        with progress("generate", blocks, unit="block") as bar:
            for piece in streamer.stream(prompt, seed):
                seconds.append(time.perf_counter() - start)
                pieces.append(piece)
                bar.update()
        video = torch.cat(pieces)
        save_video(video, path, streamer.fps)
        speed = len(video) / seconds[-1]
        print(f"{path}: {prompt!r}, seed {seed}: first block after {seconds[0]:.3f} s, {speed:.0f} frames a second")
