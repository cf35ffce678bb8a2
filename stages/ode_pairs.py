"""Integrate the teacher's ODE for the train prompts: shards fanned out by Snakemake, then their manifest."""

from filmstill.distill.make_pairs import prepare_prompts, shard_names, write_manifest
from filmstill.distill.setup import Setup
from filmstill.params.load import section
from filmstill.params.ode_pairs import OdePairs
from filmstill.runtime.fanout import collect, fan_out
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    params, setup = section(OdePairs, "ode_pairs"), Setup.read()
    prepare_prompts(params, setup)
    shards = fan_out("ode_pairs", stage.work, shard_names(params), params.prompts, "pair", setup.compute.device)
    folder = stage.out / "ode_pairs"
    write_manifest(params, folder, collect(shards, folder))


if __name__ == "__main__":
    run("ode_pairs", main)
