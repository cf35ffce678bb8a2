"""The teacher: trained in the embedded world, imported from a release in the open one."""

from filmstill.params.load import section
from filmstill.params.shared import DIGITS, Compute, World
from filmstill.runtime.compute import prepare
from filmstill.runtime.stage import Stage


def make_teacher(stage: Stage) -> None:
    """Write everything that data/teacher holds."""
    prepare(section(Compute, "compute"))
    if section(World, "world").name == DIGITS:
        from filmstill.distill.embedded import train_embedded

        train_embedded(stage)
    else:
        from filmstill.distill.imported import import_teacher

        import_teacher(stage.out / "teacher")
