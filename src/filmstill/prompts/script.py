"""In which script a prompt is written."""

import unicodedata
from collections import Counter
from functools import lru_cache


def not_latin(prompt: str, min_share: float) -> str | None:
    """Why the prompt is refused: too few of its letters are Latin, or it has none. None if it is fine."""
    if prompt.isascii() and any(map(str.isalpha, prompt)):
        return None
    scripts = Counter(script_of(character) for character in prompt if character.isalpha())
    if not scripts:
        return "no letters"
    if scripts["LATIN"] >= min_share * scripts.total():
        return None
    del scripts["LATIN"]
    return f"script {max(sorted(scripts), key=lambda name: scripts[name])}"


@lru_cache(maxsize=65536)
def script_of(letter: str) -> str:
    """The first word of the letter's Unicode name: LATIN, CYRILLIC, CJK, HIRAGANA, ARABIC …"""
    return unicodedata.name(letter, "UNKNOWN").split()[0]
