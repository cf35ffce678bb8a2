"""Read the prompt tables that the prompts stage wrote."""

from pathlib import Path

import pandas as pd

from filmstill.errors import FilmstillError
from filmstill.runtime.tables import read_table


def load_prompts(path: Path, count: int | None = None, key: str = "") -> pd.DataFrame:
    """Columns id, prompt, text of the first `count` prompts (None: all).

    key: the parameter that sets `count`. Raises FilmstillError, naming it, if there are fewer prompts.
    """
    table = read_table(path, ["id", "prompt", "text"])
    if count is not None and len(table) < count:
        raise FilmstillError(f"{key}: is {count}, but {path} holds {len(table)} prompts; lower it or filter less")
    return table if count is None else table.head(count)
