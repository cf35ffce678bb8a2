"""Encode a stage's prompts before its shards run side by side on this machine, so that one process holds the encoder.

Without torch, which takes seconds to import, where there is nothing to encode with.
"""

from filmstill.cluster.config import LOCAL, read_cluster
from filmstill.params.shared import OPEN, World


def prepare_prompts(prompts: list[str], world: World) -> None:
    """Jobs of SLURM's each encode what they are asked for; the embedded encoder has no weights."""
    if world.name == OPEN and read_cluster().executor == LOCAL:
        from filmstill.distill.setup import Setup

        setup = Setup.prepared()
        setup.encoder.prepare([*prompts, setup.text.negative])
