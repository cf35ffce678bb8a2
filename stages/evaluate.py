"""Score every arm (digits-bench) and draw the report."""

from filmstill.artifacts import CODEC, SAMPLES
from filmstill.evaluate.closing import drift_line, headline
from filmstill.evaluate.evaluate import evaluate
from filmstill.params.evaluate import Evaluate
from filmstill.params.load import read_seed, section
from filmstill.params.shared import Compute, World
from filmstill.runtime.compute import prepare
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    prepare(section(Compute, "compute"))
    metrics = evaluate(
        SAMPLES,
        CODEC,
        section(World, "world"),
        section(Evaluate, "evaluate"),
        read_seed(),
        stage.out / "evaluate",
    )
    print(headline(metrics), drift_line(metrics), "the whole table: python -m filmstill results", sep="\n")


if __name__ == "__main__":
    run("evaluate", main)
