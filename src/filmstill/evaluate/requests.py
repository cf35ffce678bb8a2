"""The arms of a comparison, and the prompts and seeds requested of each.

Imports neither torch nor, before `requests` is called, pandas: both take long.
"""

from typing import TYPE_CHECKING

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED

if TYPE_CHECKING:
    import pandas as pd

ARMS = ("real", "teacher", "undistilled", "init", "student")  # the same prompts and seeds, clips of one length
LONG_ARM = "student_long"  # the student's long stream, for drift
TIMING = "timing"  # the shard that times the arms, in turns
TIMED_AS = {"undistilled": "student", "init": "student"}  # the same network with other weights takes the same time


def short_arms(world: str) -> tuple[str, ...]:
    """Arms whose clips are compared in the world of this name: only digits can be drawn for real."""
    return ARMS if world == EMBEDDED else ARMS[1:]


def every_arm(world: str) -> tuple[str, ...]:
    """`short_arms` and the long stream's arm."""
    return (*short_arms(world), LONG_ARM)


def timed_arms(world: str) -> tuple[str, ...]:
    """The arms that are timed."""
    return tuple(arm for arm in every_arm(world) if arm not in TIMED_AS)


def requests(params: Samples, arm: str) -> "pd.DataFrame":
    """Clips requested of an arm: columns id, prompt, text, seed; the seeds of a prompt in neighbouring rows."""
    import pandas as pd

    from filmstill.prompts.store import load_prompts

    prompts = load_prompts(EVAL_PROMPTS, params.prompts, "samples.prompts")
    if arm == LONG_ARM:
        return prompts.head(params.long_prompts).assign(seed=0)
    seeds = pd.DataFrame({"seed": range(params.seeds)})
    return prompts.merge(seeds, how="cross")
