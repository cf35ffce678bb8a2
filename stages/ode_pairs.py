"""Integrate the teacher's ODE for the train prompts (CausVid, arXiv:2412.07772).

Snakemake makes the shards in parallel, each by workflow/scripts/ode_pairs.py; this stage writes their manifest.
"""

from filmstill.cluster.run import fan_out, run_stage, shards_run_here
from filmstill.params.ode_pairs import OdePairs
from filmstill.params.shared import SharedParams
from filmstill.params.world import OPEN
from filmstill.training.pairs_table import prompts_of, shard_names, write_manifest
from filmstill.work.folder import collect
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Write data/ode_pairs: shards of trajectories and manifest.parquet."""
    params, shared = stage.params.section(OdePairs, "ode_pairs"), SharedParams.of(stage.params)
    prompts = prompts_of(params)["text"].tolist()  # refused here if there are too few, before a shard starts
    if shared.world.name == OPEN and shards_run_here():
        from filmstill.training.setup import encode_ahead  # here: imports torch, which takes seconds

        encode_ahead(stage.params, prompts)
    shards = fan_out("ode_pairs", stage.work, shard_names(params), params.prompts, "pair", shared.compute.device)
    folder = stage.out / "ode_pairs"
    write_manifest(params, folder, collect(shards, folder))


if __name__ == "__main__":
    run_stage("ode_pairs", main)
