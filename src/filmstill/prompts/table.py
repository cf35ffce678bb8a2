"""Read raw prompt tables: a CSV with VidProM's columns (arXiv:2403.06098), or a text file with one prompt per line.

VidProM's quoted prompts contain line breaks, so a row may span lines. Columns are found by VidProM's names or the other
ALIASES, in any order and case.
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from filmstill.errors import FilmstillError
from filmstill.prompts.text_file import LONGEST_LINE, TABLE, check_file, read_lines

# Column to the names that it may have in a file (compared in lower case, with other characters as underscores).
ALIASES = {
    "id": ("uuid", "id", "prompt_id"),
    "prompt": ("prompt", "caption", "text"),
    "text": ("text", "extended", "extended_prompt", "long_prompt"),
    "toxicity": ("toxicity", "toxic"),
    "obscene": ("obscene", "obscenity"),
    "identity_attack": ("identity_attack", "identity_hate"),
    "insult": ("insult",),
    "threat": ("threat",),
    "sexual_explicit": ("sexual_explicit", "sexually_explicit", "sexual"),
}
LONGEST_ID = 200  # characters: an id is repeated in every table and reason


def read_table(path: Path | str, scores: Sequence[str]) -> pd.DataFrame:
    """The raw rows in file order: `id`, `prompt` (unchanged) and, from a CSV, every column of `scores` (float).

    A score that is not a number is NaN. The id of a row without one is a hash of its prompt, so that added rows change
    no id. A text file has no scores. Raises FilmstillError if the file is not such a table.
    """
    path = Path(path)
    check_file(path, TABLE)
    if path.suffix.lower() not in (".csv", ".txt"):
        raise FilmstillError(
            f"{path}: is a '{path.suffix}' file, allowed: .csv (columns) or .txt (one prompt per line)"
        )
    if path.suffix.lower() == ".txt":
        columns: dict[str, list[str]] = {"prompt": [line.rstrip("\r\n") for line in read_lines(path, TABLE)]}
    else:
        columns = read_columns(path, ("prompt", *scores), optional=("id",))
    prompts = columns["prompt"]
    if not prompts:
        what = "no line" if path.suffix.lower() == ".txt" else "a header and no rows"
        raise FilmstillError(f"{path}: has {what}; at least one prompt is needed")
    named = zip(columns.get("id", [""] * len(prompts)), prompts, strict=True)
    table = pd.DataFrame({"id": [_id(name.strip(), prompt) for name, prompt in named], "prompt": prompts})
    for name in scores:
        if name in columns:
            table[name] = pd.to_numeric(pd.Series(columns[name], dtype=object), errors="coerce")
    return table


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, list[str]]:
    """Columns of a CSV as text, by the keys of ALIASES.

    Raises FilmstillError for a column of `required` that is missing or there twice, and with the line number for a line
    that is not CSV.
    """
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(read_lines(path, TABLE), strict=True)
    try:
        header = next(reader, [])
        positions = _positions(path, header, required, optional)
        columns: dict[str, list[str]] = {name: [] for name in positions}
        for row in reader:
            if row and len(row) != len(header):
                raise FilmstillError(
                    f"{path}: line {reader.line_num}: has {len(row)} cells where the header has {len(header)}; "
                    "a prompt with commas or quotes must be quoted"
                )
            for name, position in positions.items() if row else ():  # an empty line is not a row
                columns[name].append(row[position])
    except csv.Error as error:
        raise FilmstillError(f"{path}: line {reader.line_num}: not CSV ({error})") from error
    return columns


def _positions(path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Position of each column in the header. Raises FilmstillError if a required one is missing or one is ambiguous."""
    found = [re.sub(r"[^a-z0-9]+", "_", name.strip().lower()) for name in header]
    positions: dict[str, int] = {}
    for name in (*required, *optional):
        free = (alias for alias in ALIASES[name] if alias in found and found.index(alias) not in positions.values())
        position = next((found.index(alias) for alias in free), None)
        if position is not None:
            if found.count(found[position]) > 1:
                raise FilmstillError(
                    f"{path}: has {found.count(found[position])} columns '{found[position]}', allowed: 1; rename or "
                    "remove the others"
                )
            positions[name] = position
    missing = [name for name in required if name not in positions]
    if missing:
        shown = ", ".join(" ".join(name.split())[:40] for name in header[:12]) or "none"
        raise FilmstillError(
            f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"found: {shown}; needed: {', '.join(required)}"
        )
    return positions


def _id(name: str, prompt: str) -> str:
    """A row's id: its name, a hash of a long name, or a hash of the prompt if it has no name."""
    if name and len(name) <= LONGEST_ID:
        return name
    return hashlib.sha256((name or prompt).encode()).hexdigest()[:16]
