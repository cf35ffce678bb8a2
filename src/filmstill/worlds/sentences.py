"""Random sentences of the digits world's English (worlds/grammar.py)."""

import re
from collections.abc import Sequence

import torch

from filmstill.worlds.grammar import COLOUR_WORDS, DIGIT_WORDS, MANNERS, SENTENCES, SUBJECTS, VERBS, Attributes


def sentence(attributes: Attributes, dice: torch.Generator) -> str:
    """A random English sentence that names these attributes and nothing else, in at most MAX_WORDS words."""

    def pick(choices: Sequence[str]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=dice))]

    digit = pick((DIGIT_WORDS[attributes.digit], str(attributes.digit)))
    subject = pick(SUBJECTS).format(colour=pick(COLOUR_WORDS[attributes.colour]), digit=digit)
    verb, manner = pick(VERBS[attributes.motion]), pick(MANNERS[attributes.motion])
    text = pick(SENTENCES).format(subject=subject, verb=verb, manner=manner)
    text = re.sub(r"\ba (?=[ae]|8)", "an ", text)  # an emerald three, an aqua one, an eight, an 8
    return text[0].upper() + text[1:] + "."
