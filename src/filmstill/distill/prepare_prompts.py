"""Encode a stage's prompts before its shards run side by side on this machine, so that one process holds the encoder.

Without torch, which takes seconds to import, where there is nothing to encode with.
"""

from filmstill.cluster.config import LOCAL, read_cluster
from filmstill.params.shared import OPEN, World


def prepare_prompts(prompts: list[str], world: World) -> None:
    """Encode them into the cache of prompts, where shards on this machine are going to look for them.

    Nothing to do for SLURM's jobs, which each encode what they are asked for, and for the embedded encoder, which has
    no weights.
    """
    if world.name == OPEN and read_cluster().executor == LOCAL:
        from filmstill.distill.setup import Setup

        setup = Setup.prepared()
        setup.encoder.prepare([*prompts, setup.text.negative])
