"""Make clips with every arm, on the same prompts and seeds: arms fanned out by Snakemake, then their mp4s."""

from filmstill.distill.setup import Setup
from filmstill.evaluate.arms import long_plan, requests
from filmstill.evaluate.clips import write_samples
from filmstill.evaluate.names import EVERY_ARM
from filmstill.params.load import section
from filmstill.params.samples import Samples
from filmstill.runtime.fanout import fan_out
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    params, setup = section(Samples, "samples"), Setup.read()
    long_plan(params, setup)  # refuse bad parameters before the first arm is made
    clips = sum(len(requests(params, arm)) for arm in EVERY_ARM)
    shards = fan_out("samples", stage.work, [f"samples-{arm}" for arm in EVERY_ARM], clips, "clip")
    write_samples(params, setup.codec(), dict(zip(EVERY_ARM, shards, strict=True)), stage.out / "samples")


if __name__ == "__main__":
    run("samples", main)
