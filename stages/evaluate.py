"""Score every arm (digits-bench) and draw the report."""

from pathlib import Path

from filmstill.evaluate.closing import drift_line, headline
from filmstill.evaluate.evaluate import evaluate
from filmstill.params.evaluate import Evaluate
from filmstill.params.load import section, value
from filmstill.params.shared import World
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    metrics = evaluate(
        Path("data/samples"),
        Path("data/teacher/codec.safetensors"),
        section(World, "world"),
        section(Evaluate, "evaluate"),
        value(int, "seed"),
        stage.out / "evaluate",
    )
    print(headline(metrics), drift_line(metrics), "the whole table: python -m filmstill results", sep="\n")


if __name__ == "__main__":
    run("evaluate", main)
