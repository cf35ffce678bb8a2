"""The arms of a comparison, and what each of them is asked for. Without torch, which takes seconds to import."""

import pandas as pd

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.params.samples import Samples
from filmstill.params.world import DIGITS, World
from filmstill.prompts.store import load_prompts

ARMS = ("real", "teacher", "undistilled", "init", "student")  # the same prompts, the same seeds, one clip long
LONG_ARM = "student_long"  # the student's long stream, for drift


def short_arms(world: World) -> tuple[str, ...]:
    """The arms whose clips are compared: only the world of digits can show what is asked of it."""
    return ARMS if world.name == DIGITS else ARMS[1:]


def every_arm(world: World) -> tuple[str, ...]:
    return (*short_arms(world), LONG_ARM)


def requests(params: Samples, arm: str) -> pd.DataFrame:
    """What every arm is asked for: columns id, prompt, text, seed; a prompt's seeds side by side."""
    long = arm == LONG_ARM
    prompts = load_prompts(EVAL_PROMPTS, params.prompts, "samples.prompts")
    if long:
        return prompts.head(params.long_prompts).assign(seed=0)
    seeds = pd.DataFrame({"seed": range(params.seeds)})
    return prompts.merge(seeds, how="cross")
