"""Make clips with every arm, on the same prompts and seeds: arms fanned out by Snakemake, then their mp4s."""

from filmstill.distill.setup import Setup
from filmstill.evaluate.arms import ARMS, long_plan, requests
from filmstill.evaluate.clips import write_samples
from filmstill.params.load import section
from filmstill.params.samples import Samples
from filmstill.runtime.fanout import fan_out
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    params, setup = section(Samples, "samples"), Setup.read()
    long_plan(params, setup)  # refuse bad parameters before the first arm is made
    clips = sum(len(requests(params, arm)) for arm in ARMS)
    shards = fan_out("samples", stage.work, [f"samples-{arm}" for arm in ARMS], clips, "clip")
    write_samples(params, setup.codec(), dict(zip(ARMS, shards, strict=True)), stage.out / "samples")


if __name__ == "__main__":
    run("samples", main)
