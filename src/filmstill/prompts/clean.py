"""Clean a prompt to one plain line of text."""

import html
import re
import unicodedata

import ftfy

LONGEST = 32768  # characters; longer prompts are not cleaned, since the length step drops them

_INLINE = re.compile(r"</?(?:a|b|em|font|i|span|strong|u)\b[^<>]*>", re.IGNORECASE)  # tags that may be inside a word
_BREAK = re.compile(r"[\t-\r\x1c-\x1f]")  # white space that ftfy would remove between words
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
_UNTOUCHED = re.compile(r"[ -%'-;=?-~]*")  # ASCII without control characters, & and <>: needs no cleaning but spaces


def clean(text: str) -> str:
    """Repair mojibake, remove HTML, control and invisible characters, normalise to NFKC, collapse white space."""
    if len(text) > LONGEST:
        return text
    if not _UNTOUCHED.fullmatch(text):
        text = html.unescape(html.unescape(text))  # twice: "&amp;lt;" was escaped by two programs
        text = ftfy.fix_text(_BREAK.sub(" ", text), unescape_html=False, normalization="NFKC")
        text = _TAG.sub(" ", _INLINE.sub("", text))
        text = "".join(map(_visible, text))
    return " ".join(text.split())


def key(prompt: str) -> str:
    """The form in which two cleaned prompts are compared: without case."""
    return prompt.casefold()


def _visible(character: str) -> str:
    """The character; a space for a control character, "" for a format or unassigned one (zero-width, bidi)."""
    if character.isascii() and character.isprintable():
        return character
    category = unicodedata.category(character)
    return " " if category == "Cc" else "" if category[0] == "C" else character
