"""The groups of eval prompts whose clips are scored apart.

Only the symbols world has all three: `main` names combinations that models train on, `held_out` others, and `open`
leaves one attribute open. In the open world every prompt is of `main`.
"""

import pandas as pd

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED
from filmstill.prompts.store import load_prompts
from filmstill.worlds.grammar import ATTRIBUTES, parse_all

MAIN, HELD_OUT, OPEN_ENDED = "main", "held_out", "open"


def eval_groups(params: Samples, world: str) -> dict[str, pd.DataFrame]:
    """Per group, the eval prompts that `params` asks for in the world of this name: columns id, prompt, text.

    main: the first ones of the table. held_out: one per combination before the second of any. open: the first ones per
    attribute, as many of each. Raises FilmstillError, naming the parameter, if there are fewer prompts.
    """
    if world != EMBEDDED:
        return {MAIN: load_prompts(EVAL_PROMPTS, params.prompts, "samples.prompts")}
    table = load_prompts(EVAL_PROMPTS)
    attributes = parse_all(table["prompt"].tolist(), EVAL_PROMPTS)
    trained = [each.open is None and not each.held_out for each in attributes]
    held_out = table[[each.held_out for each in attributes]]
    again = held_out.groupby([str(each) for each in attributes if each.held_out]).cumcount()
    in_turns = held_out.loc[again.sort_values(kind="stable").index]
    left_open = pd.Series([each.open for each in attributes], table.index, dtype=object)
    return {
        MAIN: _first(table[trained], params.prompts, "prompts", "prompts of combinations trained on"),
        HELD_OUT: _first(in_turns, params.held_out_prompts, "held_out_prompts", "prompts of held-out combinations"),
        OPEN_ENDED: _open_ended(table, left_open, params.open_prompts),
    }


def _open_ended(table: pd.DataFrame, left_open: pd.Series, count: int) -> pd.DataFrame:
    """`count` prompts that leave an attribute open, the first ones of each attribute."""
    parts = []
    for turn, name in enumerate(ATTRIBUTES):
        share, found = len(range(turn, count, len(ATTRIBUTES))), table[left_open == name]
        enough = f", enough for {len(ATTRIBUTES) * len(found) + turn}"
        parts.append(_first(found, share, "open_prompts", f"prompts that leave the {name} open{enough}", count))
    return pd.concat(parts)


def _first(table: pd.DataFrame, count: int, key: str, which: str, value: int | None = None) -> pd.DataFrame:
    """The first `count` rows. value: of the key, if it is not `count`."""
    if len(table) < count:
        raise FilmstillError(
            f"samples.{key}: is {value or count}, but {EVAL_PROMPTS} holds {len(table)} {which}; "
            "lower it or filter less"
        )
    return table.head(count)
