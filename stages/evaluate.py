"""Score every arm and draw the report: digits-bench in the embedded world, statistics of pixels in the open one."""

from filmstill.artifacts import CODEC, SAMPLES
from filmstill.cluster.run import run_stage
from filmstill.params.compute import Compute
from filmstill.params.evaluate import Evaluate
from filmstill.params.load import read_seed, section
from filmstill.params.world import DIGITS, World
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    # Here, not above: with torch and matplotlib they take seconds, and fewer of them once `run` has begun.
    from filmstill.evaluate.results_table import drift_line, headline
    from filmstill.runtime.compute import prepare

    prepare("cpu", section(Compute, "compute").threads)  # nothing here needs a GPU
    world, params, seed = section(World, "world"), section(Evaluate, "evaluate"), read_seed()
    out = stage.out / "evaluate"
    if world.name == DIGITS:
        from filmstill.evaluate.evaluate import evaluate

        metrics = evaluate(SAMPLES, CODEC, world, params, seed, out)
    else:
        from filmstill.evaluate.open_bench import evaluate_open

        metrics = evaluate_open(SAMPLES, world, params, seed, out)
    print(headline(metrics), drift_line(metrics), "the whole table: python -m filmstill results", sep="\n")


if __name__ == "__main__":
    run_stage("evaluate", main)
