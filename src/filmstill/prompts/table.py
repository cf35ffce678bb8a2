"""Read prompt tables as people have them: VidProM's CSV, or a text file with one prompt a line.

Notable: read line by line, so that a file that is not UTF-8, or not text at all, is told with its byte
offset; VidProM's quoted prompts hold line breaks, so a row may span lines; columns are found by VidProM's
names or sensible others, in any order and case.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from filmstill.errors import FilmstillError

# Column as used here: names it may have in a file (after lower-casing, other signs as underscores).
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
LONGEST_LINE = 64 * 2**20  # bytes; far above any prompt (VidProM's longest has 29,200 characters)


def read_table(path: Path | str, scores: Sequence[str]) -> pd.DataFrame:
    """The raw rows in file order: `id`, `prompt` (as written) and, of a CSV, every column of `scores` (float).

    A score that is no number is NaN. A row without an id is named by a hash of its prompt, so that adding
    rows renames none. A text file has no scores. Raises FilmstillError for a file that is no such table.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".txt"):
        raise FilmstillError(f"{path}: is a '{path.suffix}' file, allowed: .csv (columns) or .txt (one prompt a line)")
    if path.suffix.lower() == ".txt":
        columns: dict[str, list[str]] = {"prompt": [line.rstrip("\r\n") for line in _lines(path)]}
    else:
        columns = read_columns(path, ("prompt", *scores), optional=("id",))
    prompts = columns["prompt"]
    if not prompts:
        raise FilmstillError(f"{path}: has a header and no rows; at least one prompt is needed")
    named = zip(columns.get("id", [""] * len(prompts)), prompts, strict=True)
    table = pd.DataFrame({"id": [name.strip() or _hashed(prompt) for name, prompt in named], "prompt": prompts})
    for name in scores:
        if name in columns:
            table[name] = pd.to_numeric(pd.Series(columns[name], dtype=object), errors="coerce")
    return table


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, list[str]]:
    """Columns of a CSV as text, by their names here. Raises FilmstillError with the line that is not CSV."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(_lines(path), strict=True)
    try:
        header = next(reader, [])
        places = _places(path, header, required, optional)
        columns: dict[str, list[str]] = {name: [] for name in places}
        for row in reader:
            if row and len(row) != len(header):
                raise FilmstillError(
                    f"{path}: line {reader.line_num}: has {len(row)} cells where the header has {len(header)}; "
                    "a prompt with commas or quotes must be quoted"
                )
            for name, place in places.items() if row else ():  # an empty line is no row
                columns[name].append(row[place])
    except csv.Error as error:
        raise FilmstillError(f"{path}: line {reader.line_num}: not CSV ({error})") from error
    return columns


def _places(path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    found = [re.sub(r"[^a-z0-9]+", "_", name.strip().lower()) for name in header]
    places: dict[str, int] = {}
    for name in (*required, *optional):
        free = (alias for alias in ALIASES[name] if alias in found and found.index(alias) not in places.values())
        place = next((found.index(alias) for alias in free), None)
        if place is not None:
            places[name] = place
    missing = [name for name in required if name not in places]
    if missing:
        shown = ", ".join(name[:40] for name in header[:12]) or "none"
        raise FilmstillError(
            f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"found: {shown}; needed: {', '.join(required)}"
        )
    return places


def _lines(path: Path) -> Iterator[str]:
    """The file's lines with their line ends. Raises FilmstillError where it stops being text."""
    if not path.is_file():
        raise FilmstillError(f"{path}: no such file; a prompt table (.csv or .txt) is needed")
    if path.stat().st_size == 0:
        raise FilmstillError(f"{path}: is empty; a prompt table (.csv or .txt) is needed")
    offset = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                yield _decoded(path, line, offset)
                offset += len(line)
    except OSError as error:
        raise FilmstillError(f"{path}: cannot be read ({error.strerror})") from error


def _decoded(path: Path, line: bytes, offset: int) -> str:
    if len(line) > LONGEST_LINE:
        raise FilmstillError(f"{path}: byte {offset}: a line of more than {LONGEST_LINE >> 20} MB; not a prompt table")
    if (nul := line.find(b"\0")) >= 0:
        raise FilmstillError(f"{path}: byte {offset + nul}: a NUL byte; not a text file, or damaged")
    try:
        return line.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        byte = offset + error.start
        raise FilmstillError(f"{path}: byte {byte}: not UTF-8 (0x{line[error.start]:02x}); save it as UTF-8") from error


def _hashed(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]
