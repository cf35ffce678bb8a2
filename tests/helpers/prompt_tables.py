"""Write raw prompt tables and run the prompts stage on them, for its tests."""

import csv
import os
from pathlib import Path

import pandas as pd
import pytest

from filmstill.errors import FilmstillError
from filmstill.params.prompts import MaxScores, Prompts
from filmstill.prompts.filter import filter_prompts
from filmstill.runtime.randomness import generator
from filmstill.worlds.grammar import COMBINATIONS
from filmstill.worlds.sentences import sentence

ROOT = Path(__file__).parents[2]
SCORES = tuple(vars(MaxScores()))
HEADER = ("uuid", "prompt", "time", *SCORES)
SAFE = dict.fromkeys(SCORES, "0.001")
TRAINED = [attributes for attributes in COMBINATIONS if not attributes.held_out]


def showable(count: int) -> list[str]:
    """Distinct sentences of the symbols world; each names all attributes of a combination that is not held out."""
    found: dict[str, None] = {}
    index = 0
    while len(found) < count:
        attributes = TRAINED[5 * index % len(TRAINED)]
        found[sentence(attributes, generator(0, "test prompts", index))] = None
        index += 1
    return list(found)


def write_csv(path: Path, prompts: list[str], scores: dict[int, dict[str, str]] | None = None) -> str:
    """Write a table with VidProM's columns. Row i has the id `row-i`; `scores` changes cells, by row and column."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(HEADER)
        for row, prompt in enumerate(prompts):
            values = {**SAFE, **(scores or {}).get(row, {})}
            table.writerow((f"row-{row}", prompt, "Sun Sep  3 12:27:44 2023", *values.values()))
    return str(path)


def params(raw: str, **changes: object) -> Prompts:
    """Parameters of the prompts stage without unsafe words, with a large eval share."""
    return Prompts(raw=raw, **{"unsafe_words": os.devnull, "eval_share": 0.3, **changes})  # type: ignore[arg-type]


def run(raw: str, out: Path, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Filter a table; returns (kept, rejected, counts)."""
    counts = filter_prompts(params(raw, **changes), out)
    kept = pd.concat([pd.read_parquet(out / "train.parquet"), pd.read_parquet(out / "eval.parquet")])
    return kept, pd.read_parquet(out / "rejected.parquet"), counts


def refusal(raw: str, out: Path, **changes: object) -> str:
    """The message with which a table is refused, which must be one line; nothing may have been written."""
    with pytest.raises(FilmstillError) as caught:
        filter_prompts(params(raw, **changes), out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)
