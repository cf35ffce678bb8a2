"""The groups of eval prompts whose clips are scored apart.

Only the symbols world has all three: `main` names combinations of train prompts, `held_out` those that no model trains
on, and `open` leaves the colour open. In the open world every prompt is of `main`.
"""

import pandas as pd

from filmstill.artifacts import EVAL_PROMPTS, TRAIN_PROMPTS
from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED
from filmstill.prompts.store import check_count, load_prompts
from filmstill.worlds.grammar import parse_all

MAIN, HELD_OUT, OPEN_ENDED = "main", "held_out", "open"


def eval_groups(params: Samples, world: str) -> dict[str, pd.DataFrame]:
    """Per group, the eval prompts that `params` asks for in the world of this name: columns id, prompt, text.

    The first ones of the table, in its order, but in held_out one per combination before the second of any. Raises
    FilmstillError, naming the parameter, if there are fewer prompts.
    """
    if world != EMBEDDED:
        return {MAIN: load_prompts(EVAL_PROMPTS, params.prompts, "samples.prompts")}
    table = load_prompts(EVAL_PROMPTS)
    asked = parse_all(table["prompt"].tolist(), EVAL_PROMPTS)
    trained = set(parse_all(load_prompts(TRAIN_PROMPTS)["prompt"].tolist(), TRAIN_PROMPTS))
    main = table[[each in trained and not each.open for each in asked]]
    held_out, open_ended = table[[each.held_out for each in asked]], table[[each.open for each in asked]]
    again = held_out.groupby([str(each) for each in asked if each.held_out]).cumcount()
    held_out = held_out.loc[again.sort_values(kind="stable").index]
    return {
        MAIN: _first(main, params.prompts, "prompts", "prompts of combinations trained on"),
        HELD_OUT: _first(held_out, params.held_out_prompts, "held_out_prompts", "prompts of held-out combinations"),
        OPEN_ENDED: _first(open_ended, params.open_prompts, "open_prompts", "prompts that leave the colour open"),
    }


def _first(table: pd.DataFrame, count: int, key: str, which: str) -> pd.DataFrame:
    check_count(f"samples.{key}", count, EVAL_PROMPTS, len(table), which)
    return table.head(count)
