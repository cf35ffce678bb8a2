"""Read the prompt tables that the prompts stage wrote. Does not import pandas until it reads one."""

from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.errors import FilmstillError

if TYPE_CHECKING:
    import pandas as pd


def load_prompts(path: Path, count: int | None = None, key: str = "") -> "pd.DataFrame":
    """Columns id, prompt, text of the first `count` prompts (None: all).

    key: the parameter that sets `count`. Raises FilmstillError, naming it, if there are fewer prompts.
    """
    from filmstill.runtime.tables import read_table

    table = read_table(path, ["id", "prompt", "text"])
    if count is None:
        return table
    check_count(key, count, path, len(table))
    return table.head(count)


def check_count(key: str, count: int, table: Path, held: int, which: str = "prompts") -> None:
    """Raise FilmstillError if the parameter `key` asks for more of `which` than the `held` ones of the table."""
    if count > held:
        raise FilmstillError(
            f"params.yaml: {key}: is {count}, but {table} holds {held} {which}; lower it or filter less"
        )
