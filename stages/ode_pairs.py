"""Integrate the teacher's ODE for the train prompts: shards fanned out by Snakemake, then their manifest."""

from filmstill.distill.pairs_table import prompts_of, shard_names, write_manifest
from filmstill.distill.prepare_prompts import prepare_prompts
from filmstill.params.load import section
from filmstill.params.ode_pairs import OdePairs
from filmstill.params.student_stages import SharedParams
from filmstill.runtime.fanout import collect, fan_out
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
    params, shared = section(OdePairs, "ode_pairs"), SharedParams.read()
    prepare_prompts(prompts_of(params)["text"].tolist(), shared.world)
    shards = fan_out("ode_pairs", stage.work, shard_names(params), params.prompts, "pair", shared.compute.device)
    folder = stage.out / "ode_pairs"
    write_manifest(params, folder, collect(shards, folder))


if __name__ == "__main__":
    run("ode_pairs", main)
