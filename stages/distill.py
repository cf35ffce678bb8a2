"""Self-Forcing distillation of the causal student."""

from filmstill.cluster.dispatch import dispatched
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    from filmstill.distill.make_student import make_student  # here: a process that only submits the job needs no torch

    make_student(stage)


if __name__ == "__main__":
    run("distill", dispatched(main))
