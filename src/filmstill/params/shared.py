"""The sections that ode_pairs, ode_init, distill and samples all read. Does not import torch, which takes seconds."""

from dataclasses import dataclass

from filmstill.params.compute import Compute
from filmstill.params.load import read_seed, section
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.student import Student
from filmstill.params.text import Text
from filmstill.params.world import World


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
    def read(cls) -> "SharedParams":
        return cls(
            read_seed(),
            section(World, "world"),
            section(Text, "text"),
            section(Compute, "compute"),
            section(Schedule, "schedule"),
            section(Model, "model"),
        )


def read_student(world: World) -> Student:
    """The section `student`, checked against the clip length of `world`."""
    student = section(Student, "student")
    student.check_frames(world.frames, "world.frames")
    return student
