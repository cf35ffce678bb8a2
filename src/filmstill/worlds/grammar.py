"""The symbols world's small English: vocabulary and parser (worlds/sentences.py generates its sentences).

The text encoder is a bag of hashed words, so the set of words decides what a prompt shows, never their order.
Therefore no word is shared by two symbols or two colours, and every motion is named by words that no other motion uses
("left" and "right", "up" and "down", "clockwise").

A prompt may leave the colour open ("a star circles clockwise"): a clip of it has any one colour.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.params.world import MAX_WORDS

SYMBOLS = ("star", "heart", "club", "sun", "umbrella", "plane", "phone", "anchor", "knight", "note", "flag", "smiley")
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
MOTIONS = ("sways", "bobs", "clockwise", "anticlockwise")

SYMBOL_WORDS = {
    "star": ("star",),
    "heart": ("heart",),
    "club": ("club", "clover"),
    "sun": ("sun",),
    "umbrella": ("umbrella", "parasol"),
    "plane": ("plane", "airplane"),
    "phone": ("phone", "telephone"),
    "anchor": ("anchor",),
    "knight": ("knight", "horse"),
    "note": ("note", "melody"),
    "flag": ("flag", "banner"),
    "smiley": ("smiley", "face"),
}
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
    "a {colour} {symbol}",
    "a {symbol} in {colour}",
    "a small {colour} {symbol}",
    "the {colour} {symbol}",
    "the {symbol} in {colour}",
    "one {colour} {symbol}",
)
SUBJECTS_OF_ANY_COLOUR = ("a {symbol}", "a small {symbol}", "the {symbol}", "one {symbol}")
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
    """What a clip shows, or what a prompt names: one of SYMBOLS, COLOURS and MOTIONS.

    colour: None in a prompt that leaves it open.
    """

    symbol: str
    colour: str | None
    motion: str

    @property
    def open(self) -> bool:
        """Whether the colour is left open."""
        return self.colour is None

    @property
    def held_out(self) -> bool:
        """Whether this is one of the 24 combinations that no model trains on.

        Every pair of a symbol and a colour, a symbol and a motion, a colour and a motion is in other combinations: at
        most one colour of a symbol and a motion is held out.
        """
        if self.colour is None:
            return False
        symbol, colour, motion = SYMBOLS.index(self.symbol), COLOURS.index(self.colour), MOTIONS.index(self.motion)
        return (symbol + 2 * colour + 3 * motion) % len(SYMBOLS) == 0


ATTRIBUTES = {"symbol": SYMBOLS, "colour": COLOURS, "motion": MOTIONS}  # name -> values
COMBINATIONS = tuple(Attributes(s, c, m) for s in SYMBOLS for c in COLOURS for m in MOTIONS)


class NotShowable(FilmstillError):
    """The world cannot show this prompt; the message is a short, stable reason."""


def parse(prompt: str) -> Attributes:
    """The attributes that a prompt names; case, punctuation and white space do not matter.

    Raises NotShowable unless it names exactly one symbol, one motion and at most one colour, every other word is in the
    grammar, and it has at most MAX_WORDS words.
    """
    words = words_of(prompt)
    symbols = [_SYMBOL_OF[word] for word in words if word in _SYMBOL_OF]  # "a star and a star" is two symbols
    colours = sorted({_COLOUR_OF[word] for word in words if word in _COLOUR_OF})
    motions = sorted(_motions(set(words)))
    for what, found, least in (("symbol", symbols, 1), ("colour", colours, 0), ("motion", motions, 1)):
        if not least <= len(found) <= 1:
            raise NotShowable(f"no {what}" if not found else f"{'two' if len(found) == 2 else 'several'} {what}s")
    for word in words:
        if word not in _VOCABULARY:
            raise NotShowable(f"unknown word '{word}'")
    if len(words) > MAX_WORDS:
        raise NotShowable(f"more than {MAX_WORDS} words")
    return Attributes(symbols[0], colours[0] if colours else None, motions[0])


def parse_all(prompts: list[str], where: Path) -> list[Attributes]:
    """`parse` every prompt of the table `where`. Raises FilmstillError for one that the world cannot show."""
    attributes = []
    for prompt in prompts:
        try:
            attributes.append(parse(prompt))
        except NotShowable as reason:
            raise FilmstillError(
                f"{where}: {reason} in '{prompt[:80]}'; set prompts.world: symbols, which keeps what can be judged"
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


_SYMBOL_OF = {word: symbol for symbol, words in SYMBOL_WORDS.items() for word in words}
_COLOUR_OF = {word: colour for colour, words in COLOUR_WORDS.items() for word in words}
_VOCABULARY = {"an", *_SYMBOL_OF, *_COLOUR_OF} | {
    word
    for phrases in (SUBJECTS, SENTENCES, *VERBS.values(), *MANNERS.values())
    for phrase in phrases
    for word in words_of(re.sub(r"\{\w+\}", "", phrase))
}
