"""Where the teacher comes from: the embedded world's is trained, a released one is imported."""

from filmstill.cluster.dispatch import dispatched
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    from filmstill.distill.make_teacher import make_teacher  # here: a process that only submits the job needs no torch

    make_teacher(stage)


if __name__ == "__main__":
    run("teacher", dispatched(main))
