"""A run as the planner sees it: networks, clip and machine, and the memory that they take on each GPU."""

from dataclasses import dataclass, replace
from functools import cached_property

from filmstill.errors import require
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.flops import Clip
from filmstill.models.parameter_counts import parameters
from filmstill.models.weights import config_of
from filmstill.params.schema import Params
from filmstill.params.shared import window_stride
from filmstill.params.teacher import NOTHING
from filmstill.params.world import OPEN
from filmstill.plan.known_models import UMT5_DIM, VAE_PARAMETERS, released_networks, vae_decode_bytes, vae_decode_flops
from filmstill.plan.machine import Machine
from filmstill.plan.memory import (
    FLOAT32,
    Memory,
    cast_bytes,
    float32_bytes,
    forward_bytes,
    frozen_bytes,
    gathered_bytes,
    kv_cache_bytes,
    optimizer_bytes,
)
from filmstill.training.carried_streams import carried_frames
from filmstill.training.loss_windows import LossWindows
from filmstill.training.preview import SHEET_ROWS

SIZES = {"float32": FLOAT32, "bfloat16": 2}


@dataclass(frozen=True)
class Run:
    """The parameters of a run and its machine."""

    params: Params
    machine: Machine

    @cached_property
    def config(self) -> DiTConfig:
        """Sizes of teacher, student and critic."""
        return config_of(self.params.model)

    @cached_property
    def real_scores(self) -> list[DiTConfig]:
        """Sizes of the real score's networks: the teacher, a larger network, or two experts."""
        folder = self.params.teacher.real_score
        return [self.config] if folder == NOTHING else released_networks(folder, "teacher.real_score")

    @cached_property
    def attention(self) -> BlockCausal:
        return BlockCausal.of(self.params.student)

    @property
    def loss_windows(self) -> LossWindows:
        """Where the loss of an update of distill may begin in its rollout."""
        params, frames = self.params.distill, self.params.world.frames
        if params.carry_on and params.rollout_frames:
            start = carried_frames(self.attention, frames)
            return LossWindows(range(start, start + 1), frames / params.rollout_frames)
        return LossWindows.of(params, frames, window_stride(self.params.world, self.params.student))

    @property
    def size(self) -> int:
        """Bytes per number in `compute.precision`."""
        return SIZES[self.params.compute.precision]

    @property
    def activation_checkpointing(self) -> bool:
        return self.params.compute.activation_checkpointing

    @property
    def open(self) -> bool:
        """Whether networks, text encoder and codec come from a release."""
        return self.params.world.name == OPEN

    @property
    def wan_encoder(self) -> bool:
        """Whether prompts are encoded by UMT5-XXL; the encoder of a miniature is too small to count."""
        return self.open and self.config.text_dim == UMT5_DIM

    def latent_shape(self, frames: int | None = None) -> tuple[int, int, int, int]:
        """(F, C, H, W) of a clip, or of a stream of `frames` latent frames."""
        shape = self.params.world.latent_shape(self.config.in_channels)
        return (frames or shape[0], *shape[1:])

    def clip(self, frames: int | None = None) -> Clip:
        return Clip.of(self.latent_shape(frames), self.params.model.text_len)

    def micro_batch(self, stage: str, batch: int) -> int:
        """Samples per GPU and micro-batch. Raises FilmstillError for a batch that cannot be divided evenly."""
        gpus, size = self.machine.gpus, self.params.compute.micro_batch
        if size is None:
            require(batch % gpus == 0, f"{stage}.batch", batch, f"a multiple of --gpus ({gpus})")
            return batch // gpus
        allowed = f"a multiple of --gpus × compute.micro_batch = {gpus} × {size} = {gpus * size}"
        require(batch % (gpus * size) == 0, f"{stage}.batch", batch, allowed)
        return size

    def text_bytes(self, config: DiTConfig, batch: int) -> float:
        return kv_cache_bytes(config, batch, self.params.model.text_len, self.size)

    def trained(self, networks: int, averaged: bool, muon: bool) -> Memory:
        """State of `networks` networks in training; one is updated at a time, so only one has gradients."""
        weights, shards = float32_bytes(self.config), self.machine.shards
        return Memory(
            master=networks * weights / shards,
            average=averaged * weights / shards,
            optimizer=networks * optimizer_bytes(self.config, muon) / shards,
            gradients=weights / shards,
            codec=self.codec_bytes,
        )

    def copies(self, graphs: int, frozen: list[DiTConfig]) -> float:
        """Copies of weights during training: gathered ones, or autocast's copies of the network being run.

        A rollout gathers its whole network, other passes gather layer by layer.
        graphs: passes whose graph is alive; without checkpointing each holds its own copies. frozen: frozen networks.
        """
        if self.machine.shards > 1:
            layers = [gathered_bytes(config, self.size) for config in frozen]
            return max([float(self.size * parameters(self.config)), *layers])
        offloaded = [gathered_bytes(config, self.size) for config in frozen] if self.machine.offload else []
        return cast_bytes(self.config, self.size) * (1 if self.activation_checkpointing else graphs) + max(
            offloaded, default=0.0
        )

    def frozen(self, networks: list[DiTConfig], shards: int = 1) -> float:
        """Weights of the largest of several frozen networks, of which one is on the GPU at a time."""
        largest = max(frozen_bytes(config, self.size) for config in networks)
        return 0.0 if self.machine.offload else largest / shards

    @property
    def codec_bytes(self) -> float:
        return float(self.size * VAE_PARAMETERS) if self.open else 0.0

    def decode_bytes(self, batch: int, frames: int | None = None) -> float:
        """Working memory of the codec."""
        if not self.open:
            return 0.0
        world, latent_frames = self.params.world, self.latent_shape(frames)[0]
        return vae_decode_bytes(batch, 1 + 4 * (latent_frames - 1), world.height, world.width, self.size)

    def decode_flops(self, frames: int | None = None) -> float:
        return vae_decode_flops(self.latent_shape(frames)) if self.open else 0.0

    def streaming(self, base: Memory, batch: int, attention: BlockCausal, frames: int | None = None) -> Memory:
        """`base` while a rollout without gradients generates its last block."""
        clip = self.clip(frames)
        block = clip.blocks(attention, batch)[-1]
        return replace(
            base,
            activations=forward_bytes(self.config, block, self.size),
            kv_cache=kv_cache_bytes(self.config, batch, clip.cached_tokens(attention), self.size),
            text=self.text_bytes(self.config, batch),
        )

    def sheet(self, base: Memory, prompts: int, frozen: list[DiTConfig]) -> dict[str, Memory]:
        """Phases of a sheet: clips of the student, generated and decoded during its training."""
        clips = min(prompts, SHEET_ROWS)
        idle = replace(base, gradients=0.0, copies=self.copies(1, frozen))
        decoding = replace(idle, copies=0.0, codec=self.codec_bytes + self.decode_bytes(clips))
        return {"sheet, rollout": self.streaming(idle, clips, self.attention), "sheet, decoding": decoding}
