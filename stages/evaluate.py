"""Score every arm and draw the report: symbols-bench in the embedded world, pixel statistics in the open one."""

from filmstill.artifacts import CODEC, SAMPLES
from filmstill.cluster.run import run_stage
from filmstill.params.compute import Compute
from filmstill.params.evaluate import Evaluate
from filmstill.params.student import Student
from filmstill.params.world import World
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Write data/evaluate: metrics, plots and the report; print the headline."""
    # Torch and matplotlib take seconds to import; a stage whose output is up to date needs neither.
    from filmstill.evaluate.bench import SampledClips
    from filmstill.evaluate.evaluate import BENCHES, evaluate
    from filmstill.runtime.compute import prepare

    params = stage.params
    prepare("cpu", params.section(Compute, "compute").threads)  # nothing here needs a GPU
    world, evaluated = params.section(World, "world"), params.section(Evaluate, "evaluate")
    bench = BENCHES[world.name]
    samples = SampledClips.read(SAMPLES, CODEC, params.section(Student, "student"))
    metrics = evaluate(bench, samples, world, evaluated, params.seed, stage.out / "evaluate")
    print(bench.table.headline(metrics), *bench.table.lines(metrics), sep="\n")
    print("the whole table: python -m filmstill results")


if __name__ == "__main__":
    run_stage("evaluate", main)
