"""One plain line of text from whatever was pasted into a prompt box."""

import html
import re
import unicodedata

import ftfy

LONGEST = 32768  # characters; what is longer is refused for its length anyway, so it is not worth cleaning

_INLINE = re.compile(r"</?(?:a|b|em|font|i|span|strong|u)\b[^<>]*>", re.IGNORECASE)  # these end no word
_BREAK = re.compile(r"[\t-\r\x1c-\x1f]")  # white space that ftfy would drop, joining two words
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
_UNTOUCHED = re.compile(r"[ -%'-;=?-~]*")  # ASCII without control characters, & and <>: only spaces to mend


def clean(text: str) -> str:
    """Mojibake mended, HTML gone, NFKC, no control or invisible characters, single spaces."""
    if len(text) > LONGEST:
        return text
    if not _UNTOUCHED.fullmatch(text):
        text = html.unescape(html.unescape(text))  # "&amp;lt;" was escaped twice, by two programs
        text = ftfy.fix_text(_BREAK.sub(" ", text), unescape_html=False, normalization="NFKC")
        text = _TAG.sub(" ", _INLINE.sub("", text))
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
