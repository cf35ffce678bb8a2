"""Safety filters for prompts: the table's scores and a list of words."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from filmstill.prompts.clean import WITHOUT_SPACES, clean, key, script_of
from filmstill.prompts.text_file import WORD_LIST, read_lines


def score_reasons(table: pd.DataFrame, limits: dict[str, float]) -> list[str | None]:
    """A reason for every row with a score above its limit, else None; an unreadable score counts as unsafe."""
    reasons: list[str | None] = [None] * len(table)
    for name, limit in limits.items():
        for row, score in enumerate(table[name].tolist()):
            if reasons[row] is None and not 0 <= score <= limit:
                reasons[row] = f"{name} above {limit:g}" if 0 <= score <= 1 else f"{name} is no number in [0, 1]"
    return reasons


def read_words(path: Path | str) -> list[str]:
    """Read words or phrases, one per line; `#` starts a comment. The list may be empty.

    They are cleaned as prompts are (apostrophes, accents, full-width letters), since they would match none otherwise.
    """
    lines = read_lines(Path(path), WORD_LIST, may_be_empty=True)
    words = [key(clean(line).split("#")[0].strip()) for line in lines]
    return [word for word in words if word]


def word_reasons(prompts: Sequence[str], words: Sequence[str]) -> list[str | None]:
    """A reason for every prompt that contains one of `words` (of `read_words`) as a whole word or phrase, else None.

    In a script without spaces nothing tells where a word begins and ends: there it is found anywhere.
    """
    spread = {_spread(word): word for word in sorted(words, key=lambda word: (-len(word), word))}
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, spread))})(?!\w)")
    found = (pattern.search(_spread(key(prompt))) for prompt in prompts)
    return [f"unsafe word '{spread[match.group()]}'" if match else None for match in found]


def _spread(text: str) -> str:
    """The text with every character of a script without spaces between two spaces."""
    if text.isascii():
        return text
    spaced = (f" {character} " if script_of(character) in WITHOUT_SPACES else character for character in text)
    return " ".join("".join(spaced).split())
