"""Generate clips with every arm, for the same prompts and seeds.

Snakemake makes shards of the arms in parallel, each by workflow/scripts/samples.py; this stage collects their clips.
"""

from filmstill.cluster.run import fan_out, run_stage, shards_run_here
from filmstill.evaluate.clips import write_samples
from filmstill.evaluate.requests import TIMING, requests_by_shard
from filmstill.params.samples import Samples
from filmstill.params.shared import SharedParams, student_of
from filmstill.params.world import OPEN
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Write data/samples: latents, clips and timings of every arm."""
    params, shared = stage.params.section(Samples, "samples"), SharedParams.of(stage.params)
    params.check_student(student_of(stage.params, shared.world), shared.world.name)  # before the first arm is made
    requested = requests_by_shard(params, shared.world.name)
    if shared.world.name == OPEN and shards_run_here():
        from filmstill.training.setup import encode_ahead  # here: imports torch, which takes seconds

        encode_ahead(stage.params, [text for table in requested.values() for text in table["text"]])
    names, clips = [f"samples-{shard}" for shard in (*requested, TIMING)], sum(map(len, requested.values()))
    items = clips + params.timing_rounds
    *made, timing = fan_out("samples", stage.work, names, items, "clip", shared.compute.device)
    write_samples(requested, made, timing, stage.out / "samples")


if __name__ == "__main__":
    run_stage("samples", main)
