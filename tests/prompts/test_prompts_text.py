"""Cleaning, scripts and near duplicates of prompts."""

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest

from filmstill.params.prompts import NearDuplicates, Prompts
from filmstill.prompts.clean import LONGEST, clean
from filmstill.prompts.duplicates import near_reasons, one_slip, rows_per_band, shingles
from filmstill.prompts.filter import not_latin
from filmstill.worlds.grammar import COLOUR_WORDS, COLOURS, DIGIT_WORDS, MANNERS, VERBS
from prompt_tables import run, showable, write_csv

NEAR = NearDuplicates()


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("  a \t cat\r\nhere ", "a cat here"),
        ("<p>a <B class='x'>cat</B>, here</p><br/>too", "a cat, here too"),
        ("a &quot;cat&quot; &amp; dog", 'a "cat" & dog'),
        ("a &amp;lt;b&amp;gt;cat", "a cat"),
        ("a cafÃ© â€” here", "a café — here"),
        ("ａ ｃａｔ", "a cat"),
        ("a\u00a0cat\u200b\u202e \ufeffhere", "a cat here"),
        ("a\x07 cat\x1b", "a cat"),
        ("a\x0bcat\x0chere\u2028too", "a cat here too"),
        ("“a cat’s”", '"a cat\'s"'),
        ("i <3 cats > dogs", "i <3 cats > dogs"),
    ],
)
def test_clean(raw: str, plain: str) -> None:
    assert clean(raw) == plain
    assert clean(clean(raw)) == plain


def test_what_is_too_long_is_not_worth_cleaning() -> None:
    assert clean("<b>" * LONGEST) == "<b>" * LONGEST
    assert Prompts().max_characters < LONGEST


def test_script_shares() -> None:
    assert not_latin("a café in Zürich", 0.9) is None
    assert not_latin("a red three кот", 0.9) == "script CYRILLIC"
    assert not_latin("a red three кот", 0.7) is None
    assert not_latin("東京", 0.0) is None


@pytest.mark.parametrize(
    "copy",
    [
        "A red three, sways left and right!",
        "(a red three sways) left and right",
        "A red three sways left and rihgt.",
        "A red three swayss left and right.",
        "A red thre sways left and right.",
        "A red threa sways left and right.",
    ],
)
def test_copies_go(copy: str) -> None:
    first = "A red three sways left and right."
    assert near_reasons([first, "A blue cat.", copy], ["a", "b", "c"], NEAR) == [None, None, "nearly a"]
    assert near_reasons([copy, "A blue cat.", first], ["a", "b", "c"], NEAR) == [None, None, "nearly a"]


def test_sentences_that_say_something_else_all_stay() -> None:
    prompts = [
        f"A {c} {d} {m}." for c, d, m in product(COLOURS, (*DIGIT_WORDS, *range(10)), ("sways", "bobs up and down"))
    ]
    prompts += showable(1500)
    distinct = list(dict.fromkeys(prompts))
    assert near_reasons(distinct, distinct, NEAR) == [None] * len(distinct)


def test_no_word_of_the_grammar_is_a_slip_of_another_in_its_place() -> None:
    colours = sum(COLOUR_WORDS.values(), ())
    verbs = {verb for verbs in VERBS.values() for verb in verbs}
    manners = {word for manners in MANNERS.values() for manner in manners for word in manner.split()}
    for words in (DIGIT_WORDS, colours, verbs, manners):
        assert not [pair for pair in combinations(sorted(words), 2) if one_slip(*pair)]


@pytest.mark.parametrize(
    ("a", "b", "slip"),
    [
        ("sways", "swyas", True),
        ("sways", "sway", True),
        ("sway", "sways", True),
        ("sways", "xways", True),
        ("sways", "swaxs", True),
        ("sways", "sawys", True),
        ("sways", "sways", False),
        ("sways", "swings", False),
        ("sways", "syaws", False),
        ("cat", "car", False),
        ("year1999", "year1998", False),
    ],
)
def test_one_slip(a: str, b: str, slip: bool) -> None:
    assert one_slip(a, b) is slip
    assert one_slip(b, a) is slip


def test_long_prompts_that_differ_by_a_word_are_copies_and_by_many_are_not() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    one, many = long.replace("word20", "other"), " ".join(f"word{i}" for i in range(20, 60))
    assert near_reasons([long, one, many], ["a", "b", "c"], NEAR) == [None, "nearly a", None]
    assert near_reasons([long, one], ["a", "b"], replace(NEAR, jaccard=1.0)) == [None, None]


def test_candidates_are_found_at_every_threshold() -> None:
    """Pairs just above any threshold are found, since the bands are chosen for it."""
    for jaccard in (0.3, 0.5, 0.8, 0.95):
        found = 0
        for pair in range(60):
            size = 200
            shared = round(jaccard * 2 * size / (1 + jaccard)) + 2
            a = [f"p{pair}w{i}" for i in range(size)]
            b = a[:shared] + [f"q{pair}w{i}" for i in range(size - shared)]
            reasons = near_reasons([" ".join(a), " ".join(b)], ["a", "b"], NearDuplicates(jaccard, 1))
            found += reasons[1] is not None
        assert found >= 55, f"{found} of 60 at {jaccard}"
    assert rows_per_band(0.8, 128) > rows_per_band(0.5, 128)


def test_shingles() -> None:
    assert shingles("A cat, here!", 2) == {" a", "a cat", "cat here", "here "}
    assert shingles("a cat", 1) == {"a", "cat"}
    assert shingles("cat", 5) == {" cat "}
    assert shingles("😀!", 1) == {"😀", "!"}


def test_a_misspelt_first_copy_does_not_cost_the_good_one(tmp_path: Path) -> None:
    raw = write_csv(
        tmp_path / "raw.csv", ["A red thre sways left and right.", "A red three sways left and right.", *showable(20)]
    )
    kept, rejected, _ = run(raw, tmp_path / "out")
    assert "row-1" in set(kept["id"])
    assert rejected[["id", "step"]].values.tolist() == [["row-0", "world"]]
