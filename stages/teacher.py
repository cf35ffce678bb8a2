"""Where the teacher comes from: the embedded world's is trained, a released one is imported."""

from filmstill.params.load import section
from filmstill.params.shared import DIGITS, Compute, World
from filmstill.runtime.compute import prepare
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    prepare(section(Compute, "compute"))
    if section(World, "world").name == DIGITS:
        from filmstill.distill.embedded import make_teacher

        make_teacher(stage)
    else:
        from filmstill.distill.imported import import_teacher

        import_teacher(stage.out / "teacher")


if __name__ == "__main__":
    run("teacher", main)
