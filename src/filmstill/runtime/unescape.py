"""HTML's character references in text, such as &amp; and &#233;."""

import html
import re

_HUGE = re.compile(r"&#[0-9]{20,};?")  # no character; Python refuses to read a number of more than 4,300 digits


def unescape_twice(text: str) -> str:
    """The text with its references replaced twice: "&amp;lt;" was escaped by two programs."""
    for _ in range(2):
        text = html.unescape(_HUGE.sub("\ufffd", text))
    return text
