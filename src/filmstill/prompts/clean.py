"""One plain line of text from whatever was pasted into a prompt box."""

import html
import re
import unicodedata

import ftfy

LONGEST = 32768  # characters; what is longer is refused for its length anyway, so it is not worth cleaning

_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
_UNTOUCHED = re.compile(r"[ -%'-;=?-~]*")  # ASCII without control characters, & and <>: only spaces to mend


def clean(text: str) -> str:
    """Mojibake mended, HTML gone, NFKC, no control or invisible characters, single spaces. Idempotent."""
    if len(text) > LONGEST:
        return text
    if not _UNTOUCHED.fullmatch(text):
        while (plain := html.unescape(text)) != text:  # "&amp;lt;" was escaped twice
            text = plain
        text = ftfy.fix_text(text, unescape_html=False, normalization="NFKC")
        text = _TAG.sub(" ", text)
        text = "".join(map(_visible, text))
    return " ".join(text.split())


def key(prompt: str) -> str:
    """What two cleaned prompts share if they are the same prompt."""
    return prompt.casefold()


def _visible(character: str) -> str:
    """The character; a space for a control character, nothing for a format or unassigned one (zero-width, bidi)."""
    if character.isascii() and character.isprintable():
        return character
    category = unicodedata.category(character)
    return " " if category == "Cc" else "" if category[0] == "C" else character
