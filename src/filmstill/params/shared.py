"""The sections that ode_pairs, ode_init, distill and samples all read. Does not import torch, which takes seconds."""

from dataclasses import dataclass

from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.student import Student
from filmstill.params.text import Text
from filmstill.params.world import OPEN, World


@dataclass(frozen=True)
class SharedParams:
    """The sections world, text, compute, schedule and model, checked, and the seed."""

    seed: int
    world: World
    text: Text
    compute: Compute
    schedule: Schedule
    model: Model

    @classmethod
    def of(cls, params: Values) -> "SharedParams":
        return cls(
            params.seed,
            params.section(World, "world"),
            params.section(Text, "text"),
            params.section(Compute, "compute"),
            params.section(Schedule, "schedule"),
            params.section(Model, "model"),
        )


def student_of(params: Values, world: World) -> Student:
    """The section `student`, checked against the clip length of `world`."""
    student = params.section(Student, "student")
    student.check_frames(world.frames, "world.frames")
    return student


def window_stride(world: World, student: Student) -> int:
    """Frames between the possible starts of a loss window (distill.rollout_frames).

    A teacher of symbols that begin at their motion's first frame knows no others, so a window begins there too.
    Elsewhere clips begin anywhere, so a window begins at any block.
    """
    return student.block_frames if world.name == OPEN or world.any_phase else world.period


def guidance_branches(guidance_scale: float) -> int:
    """Branches of classifier-free guidance that are computed: weight 1 is no guidance (diffusion/sample.py, guided)."""
    return 1 if guidance_scale == 1 else 2
