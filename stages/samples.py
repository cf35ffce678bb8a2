"""Make clips with every arm, on the same prompts and seeds: arms fanned out by Snakemake, then bound together."""

from filmstill.distill.prepare_prompts import prepare_prompts
from filmstill.evaluate.clips import write_samples
from filmstill.evaluate.names import every_arm
from filmstill.evaluate.requests import requests
from filmstill.params.load import section
from filmstill.params.samples import Samples
from filmstill.params.student_stages import SharedParams, read_student
from filmstill.runtime.fanout import fan_out
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    params, shared = section(Samples, "samples"), SharedParams.read()
    params.check_student(read_student(shared.world))  # before the first arm is made
    asked = {arm: requests(params, arm) for arm in every_arm(shared.world)}
    prepare_prompts([text for table in asked.values() for text in table["text"]], shared.world)
    names, clips = [f"samples-{arm}" for arm in asked], sum(map(len, asked.values()))
    shards = fan_out("samples", stage.work, names, clips, "clip", shared.compute.device)
    write_samples(asked, shards, stage.out / "samples")


if __name__ == "__main__":
    run("samples", main)
