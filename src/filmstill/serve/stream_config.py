"""What a student streams, from the header of its file: refused here, before weights are loaded or noise is made."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from filmstill.artifacts import STUDENT
from filmstill.diffusion.rollout import RolloutConfig
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError, require
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.flops import Clip
from filmstill.models.load import DTYPES
from filmstill.models.weights import read_header
from filmstill.params.compute import Compute
from filmstill.params.model import PATCH
from filmstill.params.student import Student, check_whole_blocks
from filmstill.plan.memory import kv_cache_bytes
from filmstill.runtime.gpus import GIB
from filmstill.runtime.host_memory import free_host_memory
from filmstill.serve.options import ENDLESS

log = logging.getLogger(__name__)

MAX_FPS = 1000  # frames per second
LOGGED = GIB  # smallest KV cache whose size is logged


@dataclass(frozen=True)
class StreamConfig:
    """A student's network, its rollout, the shape (F, C, H, W) of the latents that it was trained on, pixel frames per
    second, and latent frames of a stream; None: without end."""

    network: DiTConfig
    rollout: RolloutConfig
    latent_shape: tuple[int, int, int, int]
    fps: int
    frames: int | None

    @classmethod
    def read(cls, file: Path) -> "StreamConfig":
        """The config in the header of a student's file.

        Raises FilmstillError for a file that is no student, and for a fact that no rollout can have.
        """
        network, facts = read_header(file)
        if "fps" not in facts:
            raise FilmstillError(f"{file}: is not a student (its header has no rollout); use {STUDENT}")
        student = Student.of(facts, str(file))
        _check(file, network, facts, student)
        rollout = RolloutConfig.of(FlowSchedule(facts["shift"]), student)
        shape = tuple(facts["latent_shape"])
        return cls(network, rollout, shape, facts["fps"], shape[0])

    @property
    def attention(self) -> BlockCausal:
        """The rollout's attention."""
        return self.rollout.attention

    def resized(self, frames: int | str | None, window: int | None, prompt_change: str | None = None) -> "StreamConfig":
        """The same for clips of `frames` latent frames, or ENDLESS, under a local `window`; None: as trained.

        Raises FilmstillError for values that the student's blocks do not allow.
        """
        attention = self.attention
        length = self.frames if frames is None else None if frames == ENDLESS else int(frames)
        if length is not None:
            check_whole_blocks("--frames", length, attention, "whole blocks of the student")
        if window is not None:
            least = attention.min_window
            require(window >= least, "--window", window, f"at least the student's sink + block = {least} frames")
            attention = replace(attention, window_frames=window)
        if length is None and attention.window_frames is None:
            raise FilmstillError(f"--frames: is {ENDLESS}, which needs a --window of {attention.min_window} or more")
        change = prompt_change or self.rollout.prompt_change
        rollout = replace(self.rollout, attention=attention, prompt_change=change)
        return replace(self, rollout=rollout, frames=length)

    def cache_bytes(self, precision: str) -> float:
        """Bytes of the KV cache of a stream."""
        tokens = Clip.of(self.latent_shape, 0).frame_tokens * self.attention.cache_frames(self.frames)
        return kv_cache_bytes(self.network, 1, tokens, DTYPES[precision].itemsize)

    def check_memory(self, compute: Compute) -> None:
        """Raise FilmstillError if the KV cache exceeds the free memory; without a window, log what a stream takes."""
        needed, free = self.cache_bytes(compute.precision), free_memory(compute.device)
        size, least = f"{needed / GIB:,.1f} GiB", self.attention.min_window
        if needed > free:
            windowed = self.frames is None or self.attention.cache_frames(self.frames) < self.frames
            key, value = ("--window", self.attention.window_frames) if windowed else ("--frames", self.frames)
            remedy = "give a smaller one" if windowed else f"a --window of {least} or more frames bounds it"
            raise FilmstillError(
                f"{key}: is {value}, whose KV cache takes {size}, allowed: what fits into the "
                f"{free / GIB:,.1f} GiB of memory that are free; {remedy}"
            )
        if self.attention.window_frames is None and needed > LOGGED:
            log.info("the KV cache takes %s; a --window of %d or more frames bounds it", size, least)


def free_memory(device: str) -> int:
    """Bytes that are free on the GPU or in the host's memory."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else free_host_memory()


def _check(file: Path, network: DiTConfig, facts: Mapping[str, Any], student: Student) -> None:
    """Raise FilmstillError for a fact in a student's header, beside its rollout, that is missing or impossible."""
    shift, shape, fps = facts.get("shift"), facts.get("latent_shape"), facts["fps"]
    number = isinstance(shift, int | float) and isfinite(shift) and shift > 0
    require(number, f"{file}: shift", shift, "a positive number")
    require(type(fps) is int and 0 < fps <= MAX_FPS, f"{file}: fps", fps, f"an integer from 1 to {MAX_FPS}")
    right = (
        isinstance(shape, list)
        and len(shape) == 4
        and all(type(size) is int and size > 0 for size in shape)
        and (shape[0] - student.independent_first) % student.block_frames == 0
        and shape[1] == network.in_channels
        and shape[2] % PATCH == shape[3] % PATCH == 0
    )
    first = "1 and " if student.independent_first else ""
    allowed = (
        f"[F, C, H, W] with F {first}a multiple of {student.block_frames}, C = {network.in_channels}, "
        f"H and W multiples of {PATCH}"
    )
    require(right, f"{file}: latent_shape", shape, allowed)
