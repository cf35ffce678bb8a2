"""Cleaning, scripts and near duplicates of prompts."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from filmstill.params.prompts import NearDuplicates, Prompts
from filmstill.prompts import duplicates
from filmstill.prompts.clean import LONGEST, clean
from filmstill.prompts.duplicates import CROWD, near_reasons, rows_per_band, shingles
from filmstill.prompts.filter import not_latin
from filmstill.worlds.grammar import COLOURS, SYMBOL_WORDS
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
    assert not_latin("a red star кот", 0.9) == "script CYRILLIC"
    assert not_latin("a red star кот", 0.7) is None
    assert not_latin("東京", 0.0) is None


@pytest.mark.parametrize(
    "copy",
    [
        "A red star, sways left and right!",
        "(a red star sways) left and right",
        "A red red star sways left and right.",
    ],
)
def test_copies_go(copy: str) -> None:
    first = "A red star sways left and right."
    assert near_reasons([first, "A blue cat.", copy], ["a", "b", "c"], NEAR) == [None, None, "nearly a"]
    assert near_reasons([copy, "A blue cat.", first], ["a", "b", "c"], NEAR) == [None, None, "nearly a"]


def test_sentences_that_say_something_else_all_stay() -> None:
    symbols = [word for words in SYMBOL_WORDS.values() for word in words]
    prompts = [f"A {c} {s} {m}." for c, s, m in product(COLOURS, symbols, ("sways", "bobs up and down"))]
    prompts += showable(1500)
    distinct = list(dict.fromkeys(prompts))
    assert near_reasons(distinct, distinct, NEAR) == [None] * len(distinct)


@pytest.mark.parametrize(
    "words",
    [
        ("woman", "roman", "women"),
        ("horses", "houses", "hoses"),
        ("man", "men", "map"),
        ("ship", "chip", "shop"),
        ("moose", "mouse"),
        ("angel", "angle"),
        ("dinner", "diner"),
        ("right", "rihgt"),  # nothing in a table tells a slip of the pen from a rare word
    ],
)
@pytest.mark.parametrize("others", [0, 50])
def test_words_that_differ_by_a_letter_are_different_words(words: tuple[str, ...], others: int) -> None:
    """In a table where nothing else is said, and in one where the first word is common and the others occur once."""
    prompts = [f"The {words[0]} number {i} appears at {i} o'clock" for i in range(others)]
    for sentence in ("A picture of a {}.", "Two {} by the river, in the rain", "{} {} {}"):
        prompts += [sentence.replace("{}", word) for word in words]
    ids = list(map(str, range(len(prompts))))
    assert near_reasons(prompts, ids, NEAR) == [None] * len(prompts)
    assert near_reasons(prompts[::-1], ids, NEAR) == [None] * len(prompts)


LONG = "在海边的小城里，一个老人坐在窗前看着{}，{}慢慢地走过石桥，桥下的小船载着苹果和面包，夕阳把整条街染成金色"


@pytest.mark.parametrize(
    "prompts",
    [
        ("一只红色的猫在草地上奔跑", "一只黑色的猫在草地上奔跑", "一只红色的狗在草地上奔跑"),
        ("夕阳下的海边有一艘小船", "夕阳下的海边有一艘大船", "夕阳下的海边有一艘船"),
        ("赤い猫が草原を走っている", "白い猫が草原を走っている", "赤い犬が草原を走っている"),
        ("ผู้หญิงเต้นรำกลางสายฝน", "ผู้ชายเต้นรำกลางสายฝน", "แมวดำวิ่งบนหญ้า", "แมวแดงวิ่งบนหญ้า", "แมวแดงวิงบนหญ้า"),
        ("ໝາສີດຳແລ່ນຢູ່ທົ່ງຫຍ້າ", "ແມວສີດຳແລ່ນຢູ່ທົ່ງຫຍ້າ", "ໝາສີແດງແລ່ນຢູ່ທົ່ງຫຍ້າ"),
        ("ឆ្កែពណ៌ខ្មៅកំពុងរត់លើស្មៅ", "ឆ្មាពណ៌ខ្មៅកំពុងរត់លើស្មៅ", "ឆ្កែពណ៌សកំពុងរត់លើស្មៅ"),
        ("ခွေးနက်တစ်ကောင်ပြေးနေသည်", "ကြောင်နက်တစ်ကောင်ပြေးနေသည်"),
        (LONG.format("猫", "狗"), LONG.format("狗", "猫"), LONG.format("猫", "猫"), LONG.format("大猫", "狗")),
        ("a cat 在草地上奔跑", "a dog 在草地上奔跑", "a cat 在雪地上奔跑", "一只 cat 在草地上奔跑"),
        ("3只猫在草地上奔跑", "4只猫在草地上奔跑"),
        tuple(f"一只{animal}，{' '.join(f'quality{i}' for i in range(40))}" for animal in "猫狗鸟"),
        ("लड़का बारिश में नाच रहा है", "लड़की बारिश में नाच रहा है"),  # vowels that are marks
        ("🐱 runs on the grass", "🐶 runs on the grass", "😀 runs on the grass"),
        ("the ball moves →", "the ball moves ←"),
    ],
)
def test_one_character_is_another_prompt_in_scripts_without_spaces(prompts: tuple[str, ...]) -> None:
    cleaned = [clean(prompt) for prompt in prompts]
    assert near_reasons(cleaned, prompts, NEAR) == [None] * len(prompts)
    assert near_reasons(cleaned[::-1], prompts, NEAR) == [None] * len(prompts)


@pytest.mark.parametrize(
    ("prompt", "copy"),
    [
        ("一只红色的猫在草地上奔跑", "一只红色的猫，在草地上奔跑。"),
        ("一只红色的猫在草地上奔跑", "一只 红色的猫　在草地上奔跑！"),
        ("一只红色的猫在草地上奔跑", "一只红色的猫在草地上奔跑。一只红色的猫在草地上奔跑。"),
        ("赤い猫がＴシャツを着ている", "赤い猫がTシャツを着ている。"),
        ("ｱｶｲﾈｺｶﾞﾊｼﾙ", "アカイネコガハシル"),
        ("แมวแดงวิ่งบนหญ้า", "แมวแดง วิ่งบนหญ้า"),
        ("4K，一只猫在草地上奔跑", "4K 一只猫在草地上奔跑"),
        ("लड़का बारिश में नाच रहा है", "लड़का, बारिश में नाच रहा है।"),
        ("❤️ in the sky", "❤ in the sky!"),
    ],
)
def test_copies_in_scripts_without_spaces_go(prompt: str, copy: str) -> None:
    other = "雪山上的雄鹰展翅高飞"
    for rows in ([prompt, other, copy], [copy, other, prompt]):
        assert near_reasons(list(map(clean, rows)), ["a", "b", "c"], NEAR) == [None, None, "nearly a"]


def test_a_table_of_one_template_is_not_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompts are nearly as near as copies: MinHash proposes every one for every other."""
    compared, similar = [], duplicates._Kept._similar
    monkeypatch.setattr(duplicates._Kept, "_similar", lambda *given: compared.append(1) or similar(*given))
    prompts = [f"a picture of thing{i} with {' '.join(f'word{j}' for j in range(11))}" for i in range(5000)]
    copies = [f"({prompt})!" for prompt in prompts[::10]]
    reasons = near_reasons([*prompts, *copies], list(map(str, range(5500))), NEAR)
    assert reasons == [None] * 5000 + [f"nearly {i}" for i in range(0, 5000, 10)]
    assert CROWD * 1000 < len(compared) < 18 * CROWD * 5500


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
        tmp_path / "raw.csv", ["A red strar sways left and right.", "A red star sways left and right.", *showable(20)]
    )
    kept, rejected, _ = run(raw, tmp_path / "out")
    assert "row-1" in set(kept["id"])
    assert rejected[["id", "step"]].values.tolist() == [["row-0", "world"]]
