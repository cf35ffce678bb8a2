"""What the stages of the student share: read once from params.yaml, taken apart where it is used."""

from dataclasses import dataclass
from pathlib import Path

from filmstill.artifacts import CODEC
from filmstill.diffusion.rollout import RolloutPlan
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.codec import CHANNELS, DctCodec
from filmstill.models.dit import DiTConfig, VideoDiT
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, load_model
from filmstill.params.load import read_seed, section
from filmstill.params.shared import Compute, Model, Schedule, Student, World
from filmstill.runtime.compute import prepare
from filmstill.worlds.digits import latent_shape


@dataclass(frozen=True)
class Setup:
    """The shared sections, checked against one another, and what follows from them."""

    seed: int
    world: World
    student: Student
    schedule: FlowSchedule
    plan: RolloutPlan
    config: DiTConfig
    encoder: HashedWords

    @classmethod
    def read(cls) -> "Setup":
        prepare(section(Compute, "compute"))
        world, sizes, student = section(World, "world"), section(Model, "model"), section(Student, "student")
        student.check_frames(world.frames, "world.frames")
        schedule = FlowSchedule(section(Schedule, "schedule").shift)
        attention = BlockCausal(student.block_frames, student.window_frames, student.sink_frames)
        plan = RolloutPlan.of(schedule, student.steps, attention, student.context_noise)
        encoder = HashedWords(sizes.text_len, sizes.text_dim)
        return cls(read_seed(), world, student, schedule, plan, config_of(sizes, CHANNELS), encoder)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(F, C, H, W) of a clip."""
        return latent_shape(self.world)

    def codec(self) -> DctCodec:
        return DctCodec.load(CODEC)

    def network(self, path: Path) -> VideoDiT:
        """The network in a stage's file, refused if it is of other sizes than params.yaml's."""
        return load_model(path, self.config)[0]

    def facts(self) -> dict[str, object]:
        """What a student's file says of how to run it."""
        student = self.student
        return {
            "shift": self.schedule.shift,
            "steps": student.steps,
            "block_frames": student.block_frames,
            "window_frames": student.window_frames,
            "sink_frames": student.sink_frames,
            "context_noise": student.context_noise,
            "latent_shape": list(self.latent_shape),
            "text_len": self.encoder.text_len,
        }
