"""A run in the planner's terms: its networks, its clip, its machine, and what of each GPU's memory they take."""

from dataclasses import dataclass, replace
from functools import cached_property

from filmstill.errors import require
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.flops import Clip
from filmstill.models.parameter_counts import parameters
from filmstill.models.weights import config_of
from filmstill.params.schema import Params
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
from filmstill.training.preview import SHEET_ROWS

SIZES = {"float32": FLOAT32, "bfloat16": 2}


@dataclass(frozen=True)
class Run:
    """Parameters on a machine."""

    params: Params
    machine: Machine

    @cached_property
    def config(self) -> DiTConfig:
        """Of teacher, student and critic."""
        return config_of(self.params.model)

    @cached_property
    def scores(self) -> list[DiTConfig]:
        """Of the real score: the teacher's own, a larger network's, or two experts'."""
        folder = self.params.teacher.real_score
        return [self.config] if folder == NOTHING else released_networks(folder, "teacher.real_score")

    @cached_property
    def attention(self) -> BlockCausal:
        return BlockCausal.of(self.params.student)

    @property
    def size(self) -> int:
        """Bytes of a number in `compute.precision`."""
        return SIZES[self.params.compute.precision]

    @property
    def activation_checkpointing(self) -> bool:
        return self.params.compute.activation_checkpointing

    @property
    def open(self) -> bool:
        """Whether models, encoder and codec are released ones."""
        return self.params.world.name == OPEN

    @property
    def wan_encoder(self) -> bool:
        """Whether prompts are encoded by UMT5-XXL: a miniature's encoder is nothing to plan for."""
        return self.open and self.config.text_dim == UMT5_DIM

    def latent_shape(self, frames: int | None = None) -> tuple[int, int, int, int]:
        """(F, C, H, W) of a clip, or of a stream of so many frames."""
        shape = self.params.world.latent_shape(self.config.in_channels)
        return (frames or shape[0], *shape[1:])

    def clip(self, frames: int | None = None) -> Clip:
        return Clip.of(self.latent_shape(frames), self.params.model.text_len)

    def micro_batch(self, stage: str, batch: int) -> int:
        """Samples a GPU takes at once. Raises FilmstillError for a batch that does not come out even."""
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
        """What `networks` in training keep; one of them is updated at a time, so gradients are one's."""
        weights, shards = float32_bytes(self.config), self.machine.shards
        return Memory(
            master=networks * weights / shards,
            average=averaged * weights / shards,
            optimizer=networks * optimizer_bytes(self.config, muon) / shards,
            gradients=weights / shards,
            codec=self.codec_bytes,
        )

    def copies(self, graphs: int, frozen: list[DiTConfig]) -> float:
        """Copies of weights beside a training's: what is gathered, or autocast's copy of the network at work.

        A rollout gathers its whole network, others come a layer at a time.

        graphs: passes whose graph is alive; without checkpointing each holds copies of its own. frozen: what is not
        trained.
        """
        if self.machine.shards > 1:
            layers = [gathered_bytes(config, self.size) for config in frozen]
            return max([float(self.size * parameters(self.config)), *layers])
        offloaded = [gathered_bytes(config, self.size) for config in frozen] if self.machine.offload else []
        return cast_bytes(self.config, self.size) * (1 if self.activation_checkpointing else graphs) + max(
            offloaded, default=0.0
        )

    def frozen(self, networks: list[DiTConfig], shards: int = 1) -> float:
        """Weights of frozen networks, of which one answers at a time."""
        largest = max(frozen_bytes(config, self.size) for config in networks)
        return 0.0 if self.machine.offload else largest / shards

    @property
    def codec_bytes(self) -> float:
        return float(self.size * VAE_PARAMETERS) if self.open else 0.0

    def decode_bytes(self, batch: int, frames: int | None = None) -> float:
        """What the codec works in."""
        if not self.open:
            return 0.0
        world, latent_frames = self.params.world, self.latent_shape(frames)[0]
        return vae_decode_bytes(batch, 1 + 4 * (latent_frames - 1), world.height, world.width, self.size)

    def decode_flops(self, frames: int | None = None) -> float:
        return vae_decode_flops(self.latent_shape(frames)) if self.open else 0.0

    def streaming(self, base: Memory, batch: int, attention: BlockCausal, frames: int | None = None) -> Memory:
        """`base` while a rollout without gradients makes its last block, whose own keys and values wait, too."""
        clip = self.clip(frames)
        block = clip.blocks(attention, batch)[-1]
        cached = clip.cached_tokens(attention) + block.tokens
        return replace(
            base,
            activations=forward_bytes(self.config, block, self.size),
            kv_cache=kv_cache_bytes(self.config, batch, cached, self.size),
            text=self.text_bytes(self.config, batch),
        )

    def sheet(self, base: Memory, prompts: int, frozen: list[DiTConfig]) -> dict[str, Memory]:
        """A look at the student while it trains."""
        clips = min(prompts, SHEET_ROWS)
        idle = replace(base, gradients=0.0, copies=self.copies(1, frozen))
        decoding = replace(idle, copies=0.0, codec=self.codec_bytes + self.decode_bytes(clips))
        return {"sheet, rollout": self.streaming(idle, clips, self.attention), "sheet, decoding": decoding}
