"""Score every arm (digits-bench), draw the report, print the closing table."""

from pathlib import Path

from rich.console import Console

from filmstill.evaluate.closing import closing_table
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
    Console().print(closing_table(metrics))


if __name__ == "__main__":
    run("evaluate", main)
