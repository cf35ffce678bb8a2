"""The symbols world's English: the set of a sentence's words determines its attributes."""

from collections import Counter
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest

from filmstill.errors import FilmstillError
from filmstill.models.text import HashedWords
from filmstill.params.model import Model
from filmstill.params.world import MAX_WORDS
from filmstill.runtime.randomness import generator
from filmstill.worlds import grammar
from filmstill.worlds.grammar import (
    ATTRIBUTES,
    COLOUR_WORDS,
    COLOURS,
    COMBINATIONS,
    CUES,
    MOTIONS,
    SYMBOL_WORDS,
    SYMBOLS,
    Attributes,
    NotShowable,
    parse,
    parse_all,
    words_of,
)
from filmstill.worlds.sentences import sentence

OPEN = sorted({replace(a, colour=None) for a in COMBINATIONS}, key=str)
STAR = Attributes("star", "red", "sways")


@pytest.mark.parametrize("draw", range(8))
@pytest.mark.parametrize("asked", [COMBINATIONS, OPEN], ids=["full", "open"])
def test_every_sentence_names_its_attributes_in_any_word_order(asked: tuple[Attributes, ...], draw: int):
    for index, attributes in enumerate(asked):
        text = sentence(attributes, generator(0, "grammar", draw, index))
        words = words_of(text)
        assert parse(text) == attributes, text
        assert parse(" ".join(sorted(words))) == attributes, f"word order carries meaning in {text!r}"
        assert len(words) <= MAX_WORDS


def test_there_are_288_combinations_and_48_that_leave_the_colour_open():
    assert len(set(COMBINATIONS)) == 12 * 6 * 4
    assert len(OPEN) == 12 * 4 and all(a.open for a in OPEN)
    assert not any(a.open for a in COMBINATIONS)


def test_held_out_combinations_hide_no_pair_of_attributes():
    held_out = [a for a in COMBINATIONS if a.held_out]
    assert len(held_out) == 24 and not any(a.held_out for a in OPEN)
    for name, values in ATTRIBUTES.items():
        counts = Counter(getattr(a, name) for a in held_out)
        assert counts == dict.fromkeys(values, 24 // len(values)), "every value is held out equally often"
    trained = [a for a in COMBINATIONS if not a.held_out]
    for one, other in combinations(ATTRIBUTES, 2):
        pairs = {(getattr(a, one), getattr(a, other)) for a in trained}
        assert pairs == set(product(ATTRIBUTES[one], ATTRIBUTES[other]))


def test_the_same_dice_give_the_same_sentence_and_others_vary():
    texts = [sentence(STAR, generator(0, "grammar", i)) for i in range(200)]
    assert texts == [sentence(STAR, generator(0, "grammar", i)) for i in range(200)]
    assert len(set(texts)) > 100
    assert {"a", "the", "one", "watch", "here", "left", "from"} <= {words_of(text)[0] for text in texts}


def test_the_same_set_of_words_never_means_two_things():
    meaning: dict[frozenset[str], Attributes] = {}
    for index, attributes in enumerate([*COMBINATIONS, *OPEN] * 4):
        words = frozenset(words_of(sentence(attributes, generator(1, "grammar", index))))
        assert meaning.setdefault(words, attributes) == attributes
    assert len(meaning) > 600


def test_no_word_is_shared_by_two_values():
    for words, values in ((SYMBOL_WORDS, SYMBOLS), (COLOUR_WORDS, COLOURS)):
        assert tuple(words) == values and all(value in words[value] for value in values)
    names = [word for words in (SYMBOL_WORDS, COLOUR_WORDS) for group in words.values() for word in group]
    assert len(names) == len(set(names))
    cues = {motion: {word for cue in CUES[motion] for word in cue} for motion in MOTIONS}
    assert all(not cues[one] & cues[other] for one, other in combinations(MOTIONS, 2))
    assert not set(names) & set().union(*cues.values())


def test_every_synonym_names_its_value():
    for symbol, colour, motion in COMBINATIONS_OF_WORDS:
        assert parse(f"a {colour[1]} {symbol[1]} {motion[1]}") == Attributes(symbol[0], colour[0], motion[0])


COMBINATIONS_OF_WORDS = list(
    product(
        [(symbol, word) for symbol, words in SYMBOL_WORDS.items() for word in words],
        [(colour, word) for colour, words in COLOUR_WORDS.items() for word in words],
        [(motion, f"moves {' '.join(cue)}") for motion, cues in CUES.items() for cue in cues],
    )
)


def test_the_text_encoder_gives_every_word_of_the_grammar_its_own_vector():
    """Two words with nearly one vector would be one word to the network."""
    words = sorted(grammar._VOCABULARY)
    vectors = HashedWords(1, Model().text_dim).encode(words)[:, 0]
    cosine = vectors / vectors.norm(dim=1, keepdim=True)
    assert len(words) == 63 and (cosine @ cosine.T).fill_diagonal_(0).abs().max() < 0.55


def test_a_vowel_takes_an():
    asked = [Attributes(symbol, colour, "bobs") for symbol in ("umbrella", "anchor", "plane") for colour in COLOURS]
    asked += [replace(a, colour=None) for a in asked]
    texts = [f" {sentence(a, generator(0, 'an', i, k))}".lower() for k, a in enumerate(asked) for i in range(40)]
    for word in ("emerald", "aqua", "umbrella", "anchor", "airplane"):
        assert any(f" an {word}" in text for text in texts)
        assert not any(f" a {word}" in text for text in texts)
    assert not any(f" an {word}" in text for text in texts for word in ("red", "small", "plane", "parasol"))


@pytest.mark.parametrize(
    "prompt",
    [
        "A RED STAR SWAYS LEFT AND RIGHT",
        "  a red\t\tstar,\n sways: left and right!!! ",
        '"a (red) star" swings... from side to side',
        "red star sways",
        "a scarlet crimson star moves left and right",
    ],
)
def test_case_punctuation_and_white_space_are_forgiven(prompt: str):
    assert parse(prompt) == STAR


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a star circles clockwise", Attributes("star", None, "clockwise")),
        ("watch the small umbrella: it bobs up and down", Attributes("umbrella", None, "bobs")),
    ],
)
def test_a_prompt_may_leave_the_colour_open(prompt: str, shown: Attributes):
    assert parse(prompt) == shown


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "no symbol"),
        ("a red cat sways left and right", "no symbol"),
        ("a red sways left and right", "no symbol"),
        ("a red star and a cat sways left and right", "unknown word 'cat'"),
        ("a red star and a red star sways left and right", "two symbols"),
        ("red star heart sun sways left and right", "several symbols"),
        ("a red shape sways", "no symbol"),
        ("a star", "no motion"),
        ("a star moves", "no motion"),
        ("a red and blue star sways left and right", "two colours"),
        ("a red green blue star sways", "several colours"),
        ("a red star", "no motion"),
        ("a red star circles", "no motion"),
        ("a red star moves left", "no motion"),
        ("a red star moves to the side", "no motion"),
        ("a red star moves down", "no motion"),
        ("a star moves left", "no motion"),
        ("a red star sways up and down", "two motions"),
        ("a red star bobs left", "two motions"),
        ("a red star circles clockwise and anticlockwise", "two motions"),
        ("a red star sways bobs clockwise", "several motions"),
        ("a red star sways left and right on a beach", "unknown word 'on'"),
        ("a red star does not sway but swings from side to side", "unknown word 'does'"),
        ("a red star circles anti-clockwise", "unknown word 'anti'"),
        ("a red snowman bobs", "no symbol"),
        ("a red star sways" + " and" * MAX_WORDS, "more than 16 words"),
    ],
)
def test_what_cannot_be_shown_has_a_stable_reason(prompt: str, reason: str):
    with pytest.raises(NotShowable) as caught:
        parse(prompt)
    assert str(caught.value) == reason


def test_a_table_with_a_prompt_that_cannot_be_shown_is_refused_in_one_line():
    prompts = ["a red star sways", "a red star on " + "x" * 200]
    with pytest.raises(FilmstillError) as caught:
        parse_all(prompts, Path("train.parquet"))
    assert str(caught.value).startswith("train.parquet: no motion in 'a red star on")
    assert "set prompts.world: symbols" in str(caught.value) and len(str(caught.value)) < 200
    assert parse_all(prompts[:1], Path("train.parquet")) == [STAR]
