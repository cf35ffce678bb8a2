"""The digits world's small English: vocabulary and parser (worlds/sentences.py generates its sentences).

The text encoder is a bag of hashed words, so the set of words decides what a prompt shows, never their order.
Therefore no word is shared by two digits or two colours, and every motion is named by words that no other motion uses
("left" and "right", "up" and "down", "clockwise").
"""

import re
from dataclasses import dataclass
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.params.world import MAX_WORDS

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
MOTIONS = ("sways", "bobs", "clockwise", "anticlockwise")

COLOUR_WORDS = {
    "red": ("red", "scarlet", "crimson"),
    "green": ("green", "emerald"),
    "blue": ("blue", "cobalt"),
    "yellow": ("yellow", "lemon"),
    "magenta": ("magenta", "fuchsia"),
    "cyan": ("cyan", "aqua"),
}
VERBS = {
    "sways": ("sways", "swings", "moves"),
    "bobs": ("bobs", "bounces", "moves"),
    "clockwise": ("circles", "goes", "moves"),
    "anticlockwise": ("circles", "goes", "moves"),
}
MANNERS = {
    "sways": ("left and right", "from side to side"),
    "bobs": ("up and down",),
    "clockwise": ("clockwise", "clockwise round the middle"),
    "anticlockwise": ("anticlockwise", "counterclockwise", "anticlockwise round the middle"),
}
SUBJECTS = (
    "a {colour} {digit}",
    "a {digit} in {colour}",
    "a handwritten {colour} {digit}",
    "the {colour} digit {digit}",
    "the digit {digit} in {colour}",
    "the {colour} number {digit}",
)
SENTENCES = (
    "{subject} {verb} {manner}",
    "{subject} {verb} gently {manner}",
    "{manner} {verb} {subject}",
    "watch {subject}: it {verb} {manner}",
    "here {verb} {subject}, {manner}",
)

# Sets of words that name a motion; every word in them is evidence for this motion and no other.
CUES = {
    "sways": (("sways",), ("swings",), ("left", "right"), ("from", "side", "to")),
    "bobs": (("bobs",), ("bounces",), ("up", "down")),
    "clockwise": (("clockwise",),),
    "anticlockwise": (("anticlockwise",), ("counterclockwise",)),
}


@dataclass(frozen=True)
class Attributes:
    """What a clip of this world shows: a digit 0-9, one of COLOURS, one of MOTIONS."""

    digit: int
    colour: str
    motion: str


class NotShowable(FilmstillError):
    """The world cannot show this prompt; the message is a short, stable reason."""


def parse(prompt: str) -> Attributes:
    """The attributes that a prompt names; case, punctuation and white space do not matter.

    Raises NotShowable unless it names exactly one digit, one colour and one motion, every other word is in the
    grammar, and it has at most MAX_WORDS words.
    """
    words = words_of(prompt)
    digits = [_DIGIT_OF[word] for word in words if word in _DIGIT_OF]  # "a three and a three" is two digits
    colours = {_COLOUR_OF[word] for word in words if word in _COLOUR_OF}
    motions = _motions(set(words))
    for what, found in (("digit", len(digits)), ("colour", len(colours)), ("motion", len(motions))):
        if found != 1:
            raise NotShowable(f"no {what}" if found == 0 else f"{'two' if found == 2 else 'several'} {what}s")
    for word in words:
        if word not in _VOCABULARY:
            raise NotShowable(f"unknown word '{word}'")
    if len(words) > MAX_WORDS:
        raise NotShowable(f"more than {MAX_WORDS} words")
    return Attributes(digits[0], colours.pop(), motions.pop())


def parse_all(prompts: list[str], where: Path) -> list[Attributes]:
    """`parse` every prompt of the table `where`. Raises FilmstillError for one that the world cannot show."""
    attributes = []
    for prompt in prompts:
        try:
            attributes.append(parse(prompt))
        except NotShowable as reason:
            raise FilmstillError(
                f"{where}: {reason} in '{prompt[:80]}'; set prompts.world: digits, which keeps what can be judged"
            ) from None
    return attributes


def words_of(prompt: str) -> list[str]:
    """Split a prompt into words as the text encoder does (models/text.py)."""
    return re.findall(r"\w+", prompt.lower())


def _motions(words: set[str]) -> set[str]:
    """The motions that any word is evidence for; none if the only one is named incompletely ("moves left")."""
    hinted = {motion for motion, cues in CUES.items() if any(words.intersection(cue) for cue in cues)}
    complete = {motion for motion, cues in CUES.items() if any(words.issuperset(cue) for cue in cues)}
    return hinted if len(hinted) > 1 else complete


_DIGIT_OF = {word: digit for digit, name in enumerate(DIGIT_WORDS) for word in (name, str(digit))}
_COLOUR_OF = {word: colour for colour, words in COLOUR_WORDS.items() for word in words}
_VOCABULARY = {"an", *_DIGIT_OF, *_COLOUR_OF} | {
    word
    for phrases in (SUBJECTS, SENTENCES, *VERBS.values(), *MANNERS.values())
    for phrase in phrases
    for word in words_of(re.sub(r"\{\w+\}", "", phrase))
}
