"""The digits world's English: the set of a sentence's words determines its attributes."""

from itertools import product

import pytest

from filmstill.params.world import MAX_WORDS
from filmstill.runtime.randomness import generator
from filmstill.worlds.grammar import (
    COLOUR_WORDS,
    COLOURS,
    DIGIT_WORDS,
    MOTIONS,
    Attributes,
    NotShowable,
    parse,
    words_of,
)
from filmstill.worlds.sentences import sentence

EVERYTHING = [Attributes(d, c, m) for d, c, m in product(range(10), COLOURS, MOTIONS)]


@pytest.mark.parametrize("round_", range(8))
def test_every_sentence_says_its_attributes_in_any_word_order(round_: int) -> None:
    for index, attributes in enumerate(EVERYTHING):
        text = sentence(attributes, generator(0, "grammar", round_, index))
        words = words_of(text)
        assert parse(text) == attributes, text
        assert parse(" ".join(sorted(words))) == attributes, f"word order carries meaning in {text!r}"
        assert len(words) <= MAX_WORDS


def test_the_same_dice_give_the_same_sentence_and_others_vary() -> None:
    three = Attributes(3, "red", "sways")
    sentences = [sentence(three, generator(0, "grammar", i)) for i in range(200)]
    assert sentences == [sentence(three, generator(0, "grammar", i)) for i in range(200)]
    assert len(set(sentences)) > 100
    first_words = {words_of(text)[0] for text in sentences}
    assert {"a", "the", "watch", "here", "left", "from"} <= first_words


def test_the_same_set_of_words_never_means_two_things() -> None:
    meaning: dict[frozenset[str], Attributes] = {}
    for index, attributes in enumerate(EVERYTHING * 4):
        words = frozenset(words_of(sentence(attributes, generator(1, "grammar", index))))
        assert meaning.setdefault(words, attributes) == attributes
    assert len(meaning) > 500


def test_a_vowel_takes_an() -> None:
    texts = [sentence(Attributes(8, "green", "bobs"), generator(0, "an", i)) for i in range(300)]
    assert any(" an emerald" in t.lower() or t.startswith("An emerald") for t in texts)
    assert any("an 8" in t.lower() for t in texts) and any("an eight" in t.lower() for t in texts)
    assert not any(f" a {vowel}" in f" {t.lower()}" for t in texts for vowel in ("emerald", "eight", "8"))


def test_colour_words_belong_to_one_colour() -> None:
    words = [word for synonyms in COLOUR_WORDS.values() for word in synonyms]
    assert len(words) == len(set(words)) and tuple(COLOUR_WORDS) == COLOURS
    assert all(colour in COLOUR_WORDS[colour] for colour in COLOURS)


@pytest.mark.parametrize(
    "prompt",
    [
        "A RED THREE SWAYS LEFT AND RIGHT",
        "  a red\t3,\n sways: left and right!!! ",
        '"a (red) three" swings... from side to side',
        "red three sways",
        "a scarlet crimson three moves left and right",
    ],
)
def test_case_punctuation_and_white_space_are_forgiven(prompt: str) -> None:
    assert parse(prompt) == Attributes(3, "red", "sways")


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "no digit"),
        ("a red cat sways left and right", "no digit"),
        ("a red 12 sways left and right", "no digit"),
        ("a red three and a red three sways left and right", "two digits"),
        ("red 1 2 3 sways left and right", "several digits"),
        ("a three sways left and right", "no colour"),
        ("a red and blue three sways left and right", "two colours"),
        ("a red green blue three sways", "several colours"),
        ("a red three", "no motion"),
        ("a red three moves left", "no motion"),
        ("a red three moves to the side", "no motion"),
        ("a red three sways up and down", "two motions"),
        ("a red three bobs left", "two motions"),
        ("a red three circles clockwise and anticlockwise", "two motions"),
        ("a red three sways bobs clockwise", "several motions"),
        ("a red three sways left and right on a beach", "unknown word 'on'"),
        ("a red three does not sway but swings from side to side", "unknown word 'does'"),
        ("a red three circles anti-clockwise", "unknown word 'anti'"),
        ("a red three sways" + " and" * MAX_WORDS, "more than 16 words"),
    ],
)
def test_what_cannot_be_shown_has_a_stable_reason(prompt: str, reason: str) -> None:
    with pytest.raises(NotShowable) as caught:
        parse(prompt)
    assert str(caught.value) == reason


def test_every_digit_as_word_and_numeral() -> None:
    for digit, name in enumerate(DIGIT_WORDS):
        assert parse(f"a blue {name} bobs").digit == digit == parse(f"a blue {digit} bobs").digit
