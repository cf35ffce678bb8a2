"""Turn the teacher's weights into a causal student by regression of the teacher's own trajectories."""

from filmstill.cluster.dispatch import dispatched
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    from filmstill.distill.make_init import make_init  # here: a process that only submits the job needs no torch

    make_init(stage)


if __name__ == "__main__":
    run("ode_init", dispatched(main))
