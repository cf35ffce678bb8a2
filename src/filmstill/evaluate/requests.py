"""The arms of a comparison, and the prompts and seeds requested of each.

Imports neither torch nor, before `requests` is called, pandas: both take long.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED

if TYPE_CHECKING:
    import pandas as pd

ARMS = ("real", "teacher", "undistilled", "init", "student")  # the same prompts and seeds, clips of one length
LONG_ARM = "student_long"  # the student's long stream, for drift
TIMING = "timing"  # the shard that times the arms, in turns
TIMED_AS = {"undistilled": "student", "init": "student"}  # the same network with other weights takes the same time


def short_arms(world: str) -> tuple[str, ...]:
    """Arms whose clips are compared in the world of this name: only symbols can be drawn for real."""
    return ARMS if world == EMBEDDED else ARMS[1:]


def every_arm(world: str) -> tuple[str, ...]:
    """`short_arms` and the long stream's arm."""
    return (*short_arms(world), LONG_ARM)


def timed_arms(world: str) -> tuple[str, ...]:
    """The arms that are timed."""
    return tuple(arm for arm in short_arms(world) if arm not in TIMED_AS)


def requests_by_shard(params: Samples, world: str) -> "dict[str, pd.DataFrame]":
    """Rows of `requests` of every shard of every arm, by its name: whole batches of them."""
    shards = {}
    for arm in every_arm(world):
        table = requests(params, world, arm)
        batches = range(0, len(table), params.batch)
        number = min(params.teacher_shards, len(batches)) if arm == "teacher" else 1
        starts = [batches[len(batches) * shard // number] for shard in range(number)]
        for shard, (start, end) in enumerate(pairwise([*starts, len(table)])):
            shards[f"{arm}-{shard:04d}"] = table.iloc[start:end]
    return shards


def arm_of(shard: str) -> str:
    """The arm of a shard of this name."""
    return shard.rpartition("-")[0]


def requests(params: Samples, world: str, arm: str) -> "pd.DataFrame":
    """Clips requested of an arm in the world of this name: columns id, prompt, text, group, seed.

    Groups are in the order of `eval_groups`, the seeds of a prompt in neighbouring rows. A long stream is requested for
    the first prompts of `main`.
    """
    import pandas as pd

    from filmstill.prompts.eval_groups import HELD_OUT, MAIN, OPEN_ENDED, eval_groups

    groups = {name: prompts.assign(group=name) for name, prompts in eval_groups(params, world).items()}
    if arm == LONG_ARM:
        return groups[MAIN].head(params.long_prompts).assign(seed=0).reset_index(drop=True)
    seeds = {MAIN: params.seeds, HELD_OUT: 1, OPEN_ENDED: params.open_seeds}
    tables = [
        prompts.merge(pd.DataFrame({"seed": range(seeds[name])}), how="cross") for name, prompts in groups.items()
    ]
    return pd.concat(tables, ignore_index=True)
