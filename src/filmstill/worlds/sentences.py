"""Random sentences of the symbols world's English (worlds/grammar.py)."""

import re
from collections.abc import Sequence

import torch

from filmstill.worlds import grammar
from filmstill.worlds.grammar import Attributes


def sentence(attributes: Attributes, dice: torch.Generator) -> str:
    """A random English sentence that names these attributes and nothing else, in at most MAX_WORDS words.

    A colour that is None is left open.
    """

    def pick(choices: Sequence[str]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=dice))]

    symbol = pick(grammar.SYMBOL_WORDS[attributes.symbol])
    if attributes.colour:
        subject = pick(grammar.SUBJECTS).format(colour=pick(grammar.COLOUR_WORDS[attributes.colour]), symbol=symbol)
    else:
        subject = pick(grammar.SUBJECTS_OF_ANY_COLOUR).format(symbol=symbol)
    verb, manner = pick(grammar.VERBS[attributes.motion]), pick(grammar.MANNERS[attributes.motion])
    text = pick(grammar.SENTENCES).format(subject=subject, verb=verb, manner=manner)
    text = re.sub(r"\ba (?=[aeu])", "an ", text)  # an emerald star, an aqua note, an umbrella
    return text[0].upper() + text[1:] + "."
