"""Clean a prompt to one plain line of text."""

import re
import unicodedata
from functools import lru_cache

import ftfy

from filmstill.runtime.unescape import unescape_twice

LONGEST = 32768  # characters; longer prompts are not cleaned, since the length step drops them
WITHOUT_SPACES = (  # first words of Unicode names; in other scripts spaces separate words
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "YI"),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TAI", "NEW", "TIBETAN", "JAVANESE", "BALINESE"),  # NEW TAI LUE
)

_INLINE = re.compile(r"</?(?:a|b|em|font|i|span|strong|u)\b[^<>]*>", re.IGNORECASE)  # tags that may be inside a word
_BREAK = re.compile(r"[\t-\r\x1c-\x1f]")  # white space that ftfy would remove between words
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
_MARK = r"[\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
_MARKS = re.compile(f"({_MARK}{{30}}){_MARK}+")  # no text has more than 30 (UAX #15); sorting n of them takes n² steps
_UNTOUCHED = re.compile(r"[ -%'-;=?-~]*")  # ASCII without control characters, & and <>: needs no cleaning but spaces


def clean(text: str) -> str:
    """Repair mojibake, remove HTML, control and invisible characters, normalise to NFKC, collapse white space."""
    if len(text) > LONGEST:
        return text
    if not _UNTOUCHED.fullmatch(text):
        text = _MARKS.sub(r"\1", _BREAK.sub(" ", unescape_twice(text)))
        text = ftfy.fix_text(text, unescape_html=False, normalization="NFKC")
        text = _TAG.sub(" ", _INLINE.sub("", text))
        text = "".join(map(_visible, text))
    return " ".join(text.split())


def key(prompt: str) -> str:
    """The form in which two cleaned prompts are compared: without case."""
    return prompt.casefold()


@lru_cache(maxsize=65536)
def script_of(character: str) -> str:
    """The first word of the character's Unicode name: LATIN, CYRILLIC, CJK, HIRAGANA, ARABIC, …"""
    return unicodedata.name(character, "UNKNOWN").split()[0]


def _visible(character: str) -> str:
    """The character; a space for a control character, "" for a format or unassigned one (zero-width, bidi)."""
    if character.isascii() and character.isprintable():
        return character
    category = unicodedata.category(character)
    return " " if category == "Cc" else "" if category[0] == "C" else character
