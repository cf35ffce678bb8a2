"""What the stages of the student share: read once from params.yaml, taken apart where it is used."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from filmstill.artifacts import TEACHER
from filmstill.diffusion.rollout import RolloutPlan
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.codec import Codec
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.experts import Denoiser
from filmstill.models.load import DTYPES, frozen, load_codec, load_encoder, real_score
from filmstill.models.sharding import shard
from filmstill.models.text import TextEncoder
from filmstill.models.weights import config_of, load_model
from filmstill.params.shared import Compute, Student, Text, World
from filmstill.params.student_stages import SharedParams, read_student
from filmstill.runtime import distributed
from filmstill.runtime.compute import prepare
from filmstill.runtime.micro_batches import micro_batches


@dataclass(frozen=True)
class Setup:
    """The shared sections and what follows from them. `student` and `plan` are read when a stage asks for them: a stage
    that does not is not made again when they change."""

    seed: int
    world: World
    text: Text
    compute: Compute
    schedule: FlowSchedule
    config: DiTConfig

    @classmethod
    def prepared(cls) -> "Setup":
        """Read by a process that computes: it is made ready to."""
        params = SharedParams.read()
        prepare(params.compute)
        schedule, config = FlowSchedule(params.schedule.shift), config_of(params.model)
        return cls(params.seed, params.world, params.text, params.compute, schedule, config)

    @cached_property
    def student(self) -> Student:
        return read_student(self.world)

    @cached_property
    def plan(self) -> RolloutPlan:
        student = self.student
        attention = BlockCausal(student.block_frames, student.window_frames, student.sink_frames)
        return RolloutPlan.of(self.schedule, student.steps, attention, student.context_noise)

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
        """[1, text_len, text_dim] of the prompt of guidance's other branch, on the device."""
        return self.encoded([self.text.negative])

    def encoded(self, prompts: list[str]) -> Tensor:
        """[B, text_len, text_dim] on the device; no weights of the encoder stay, unless text.placement is gpu."""
        self.encoder.prepare(prompts)
        return self.encoder.encode(prompts).to(self.device)

    def frozen(self, path: Path) -> VideoDiT:
        """The network in a stage's file, to compute with; refused if it is of other sizes than params.yaml's."""
        return frozen(load_model(path, self.config)[0], self.compute)

    def trained(self, path: Path) -> VideoDiT:
        """The same, to train: its weights stay float32."""
        model = load_model(path, self.config)[0].float().requires_grad_(True)
        model.precision, model.checkpointing = DTYPES[self.compute.precision], self.compute.checkpointing
        return shard(model, self.compute.device)

    def parts(self, batch: int, key: str) -> list[range]:
        """This process's samples of a batch, a range a pass."""
        return micro_batches(batch, self.compute.micro_batch, key, distributed.rank(), distributed.size())

    def teacher(self) -> Denoiser:
        """Whose score the student follows: the released real score where there is one, else the pairs' teacher."""
        return real_score(self.compute) or self.frozen(TEACHER)

    def facts(self) -> dict[str, object]:
        return student_facts(self.schedule.shift, self.student, self.world, self.config.in_channels)


def student_facts(shift: float, student: Student, world: World, channels: int) -> dict[str, object]:
    """What a student's file says of how to run it."""
    return {
        "shift": shift,
        "steps": student.steps,
        "block_frames": student.block_frames,
        "window_frames": student.window_frames,
        "sink_frames": student.sink_frames,
        "context_noise": student.context_noise,
        "latent_shape": list(world.latent_shape(channels)),
        "fps": world.fps,
    }
