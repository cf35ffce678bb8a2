"""The setup that the student's stages share: parameters, schedule, networks, codec and text encoder."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import TEACHER
from filmstill.diffusion.rollout import RolloutConfig
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.codec import Codec
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.experts import Denoiser
from filmstill.models.load import DTYPES, frozen, load_codec, load_encoder, load_real_score
from filmstill.models.sharding import shard
from filmstill.models.text import TextEncoder
from filmstill.models.weights import config_of, load_model
from filmstill.params.compute import Compute, micro_batches
from filmstill.params.load import Values
from filmstill.params.shared import SharedParams, student_of, window_stride
from filmstill.params.student import Student
from filmstill.params.text import Text
from filmstill.params.world import World
from filmstill.runtime import distributed
from filmstill.runtime.compute import prepare


@dataclass(frozen=True)
class Setup:
    """The shared sections of params.yaml and what follows from them.

    `student` and `rollout_config` are made on first use: stages that do not depend on them have no such section.
    """

    params: Values
    seed: int
    world: World
    text: Text
    compute: Compute
    schedule: FlowSchedule
    config: DiTConfig

    @classmethod
    def prepared(cls, params: Values) -> "Setup":
        """The setup of these parameters; prepares this process for computing (device, threads)."""
        shared = SharedParams.of(params)
        prepare(shared.compute.device, shared.compute.threads, shared.compute.float32_matmul)
        schedule, config = FlowSchedule(shared.schedule.shift), config_of(shared.model)
        return cls(params, shared.seed, shared.world, shared.text, shared.compute, schedule, config)

    @cached_property
    def student(self) -> Student:
        return student_of(self.params, self.world)

    @cached_property
    def rollout_config(self) -> RolloutConfig:
        return RolloutConfig.of(self.schedule, self.student)

    @property
    def window_stride(self) -> int:
        """Frames between the possible starts of a loss window."""
        return window_stride(self.world, self.student)

    @cached_property
    def encoder(self) -> TextEncoder:
        return load_encoder(self.text, self.compute)

    @property
    def device(self) -> torch.device:
        return torch.device(self.compute.device)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(F, C, H, W) of a clip."""
        return self.world.latent_shape(self.config.in_channels)

    def codec(self, fast: bool = False) -> Codec:
        return load_codec(self.compute, fast=fast)

    def no_text(self) -> Tensor:
        """Encoding [1, text_len, text_dim] of the negative prompt, guidance's second branch, on the device."""
        return self.encoded([self.text.negative])

    def encoded(self, prompts: list[str]) -> Tensor:
        """Encodings [B, text_len, text_dim] on the device; the encoder's weights stay only if text.placement is gpu."""
        self.encoder.prepare(prompts)
        return self.encoder.encode(prompts).to(self.device)

    def frozen(self, path: Path) -> VideoDiT:
        """The network in a stage's file, for inference. Raises FilmstillError if its sizes are not params.yaml's."""
        return frozen(load_model(path, self.config)[0], self.compute)

    def trained(self, path: Path) -> VideoDiT:
        """The network in a stage's file, for training: float32 weights, sharded over ranks. Raises as `frozen`."""
        model = load_model(path, self.config)[0].float().requires_grad_(True)
        model.precision = DTYPES[self.compute.precision]
        model.activation_checkpointing = self.compute.activation_checkpointing
        return shard(model, self.compute.device)

    def micro_batches(self, batch: int, key: str) -> list[range]:
        """This rank's samples of a batch, one range per forward pass."""
        return micro_batches(batch, self.compute.micro_batch, key, distributed.rank(), distributed.world_size())

    def real_score(self) -> Denoiser:
        """The network of the real score: the released one if there is one, else the teacher that made the pairs."""
        return load_real_score(self.compute) or self.frozen(TEACHER)

    def facts(self) -> dict[str, object]:
        """`student_facts` of this setup."""
        return student_facts(self.schedule.shift, self.student, self.world, self.config.in_channels)


def student_facts(shift: float, student: Student, world: World, channels: int) -> dict[str, object]:
    """How to run a student, as its file records it: the section `student`, schedule, clip size and frame rate."""
    shape = list(world.latent_shape(channels))
    return {**asdict(student), "shift": shift, "latent_shape": shape, "fps": world.fps}


def encode_ahead(params: Values, prompts: list[str]) -> None:
    """Encode prompts into the cache before shards run in parallel on this machine, so that none loads the encoder."""
    setup = Setup.prepared(params)
    setup.encoder.prepare([*prompts, setup.text.negative])
