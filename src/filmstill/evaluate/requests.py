"""What the arms of a comparison are asked for. Without torch, which takes seconds to import."""

import pandas as pd

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.evaluate.names import LONG_ARM
from filmstill.params.samples import Samples
from filmstill.prompts.store import load_prompts


def requests(params: Samples, arm: str) -> pd.DataFrame:
    """What every arm is asked for: columns id, prompt, text, seed; a prompt's seeds side by side."""
    long = arm == LONG_ARM
    prompts = load_prompts(EVAL_PROMPTS, params.prompts, "samples.prompts")
    if long:
        return prompts.head(params.long_prompts).assign(seed=0)
    seeds = pd.DataFrame({"seed": range(params.seeds)})
    return prompts.merge(seeds, how="cross")
