"""pretrain/params.yaml: the sections of a teacher of the symbols world that is trained once, to be released."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from filmstill.errors import FilmstillError, require
from filmstill.params.compute import Compute
from filmstill.params.keys import key
from filmstill.params.load import SEEDS, Values, checked
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.schema import check_embedded
from filmstill.params.teacher import Teacher
from filmstill.params.world import EMBEDDED, World

FILE = Path("pretrain/params.yaml")


@dataclass
class Pretrain:
    """The parameters that a teacher is trained with. Other sections have no part in it."""

    seed: int = key(0, "every random number is a function of it, 0 to 2**63 - 1")
    compute: Compute = field(default_factory=Compute)
    world: World = field(default_factory=World)
    model: Model = field(default_factory=Model)
    schedule: Schedule = field(default_factory=Schedule)
    teacher: Teacher = field(default_factory=Teacher)

    def __post_init__(self) -> None:
        require(0 <= self.seed < SEEDS, "seed", self.seed, "an integer in [0, 2**63)")
        require(self.world.name == EMBEDDED, "world.name", self.world.name, f"{EMBEDDED}: no other world draws clips")
        check_embedded(self.compute, self.model, self.teacher)


def check_pretrain() -> Pretrain:
    """The checked parameters. Raises FilmstillError for one that is wrong, and for a section that is missing."""
    values = Values.read(FILE).values
    if absent := [each.name for each in fields(Pretrain) if each.name not in values]:
        raise FilmstillError(f"{FILE}: '{absent[0]}' is missing; `git checkout {FILE}` restores every value")
    return checked(Pretrain, values, str(FILE))
