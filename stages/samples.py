"""Make clips with every arm, on the same prompts and seeds: arms fanned out by Snakemake, then bound together."""

from filmstill.distill.setup import Setup
from filmstill.evaluate.arms import long_plan, prepare_prompts, requests
from filmstill.evaluate.clips import write_samples
from filmstill.evaluate.names import every_arm
from filmstill.params.load import section
from filmstill.params.samples import Samples
from filmstill.runtime.fanout import fan_out
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    params, setup = section(Samples, "samples"), Setup.read()
    long_plan(params, setup)  # refuse bad parameters before the first arm is made
    prepare_prompts(params, setup)
    arms = every_arm(setup.world)
    clips = sum(len(requests(params, arm)) for arm in arms)
    shards = fan_out("samples", stage.work, [f"samples-{arm}" for arm in arms], clips, "clip", setup.compute.device)
    write_samples(params, dict(zip(arms, shards, strict=True)), stage.out / "samples")


if __name__ == "__main__":
    run("samples", main)
