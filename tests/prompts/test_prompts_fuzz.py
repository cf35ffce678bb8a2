"""Any table: what `check` accepts goes through the prompts stage, what it refuses is refused in one line."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from filmstill.errors import FilmstillError
from filmstill.params.prompts import Prompts
from filmstill.prompts.filter import check_tables, filter_prompts
from prompt_tables import HEADER, SCORES, showable

fuzzed = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
UNMARKED = ("utf-16-le", "utf-32-be", "latin-1", "gb18030")
NASTY = (
    *(
        "",
        " ",
        "\r",
        "\n",
        "\r\n",
        '"',
        '""',
        ",",
        ";",
        "\t",
        "'",
        "\\",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u202e",
    ),
    *(
        "\u200d",
        "é",
        "e\u0301",
        "\ufdfa",
        "🐱",
        "👩🏽‍🚀",
        "❤\ufe0f",
        "<b>",
        "</",
        "<a",
        "&lt;",
        "&amp;amp;#0;",
        "&#xD800;",
    ),
    *(
        f"&#{'9' * 5000};",
        "Ã©",
        "â€™",
        "猫",
        "赤い猫が走る",
        "แมวแดง",
        "लड़का",
        "ｶﾞ",
        "0.1",
        "1e999",
        "9" * 400,
        "nan",
        "0x1",
    ),
    *("a" * 40_000, "word " * 7_000, "a\u0301\u0316" * 10_000, "猫" * 2_000, "gun", "C++", "# no", "a b  c", "[", "(?"),
)
nasty = st.integers(0, len(NASTY) - 1).map(NASTY.__getitem__)  # hypothesis prints the choices of sampled_from
pieces = st.one_of(nasty, st.sampled_from(showable(60)), st.text(st.characters(exclude_characters="\0"), max_size=20))
cells = st.lists(pieces, max_size=4).map("".join)
names = st.one_of(st.sampled_from((*HEADER, "Prompt ", "caption", "text", "prompt", "")), cells)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cells),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def csv_bytes(draw: Callable, *headers: tuple[str, ...]) -> bytes:
    """A CSV by its writer. One in eight has any header, and one in eight a row with any number of cells."""
    columns = draw(st.sampled_from(headers)) if draw(often) else draw(st.lists(names, max_size=10))
    scores = st.sampled_from((*["0.01"] * 40, "", "x", "0.3", "1" * 400))
    row = st.tuples(*(scores if name in SCORES else cells for name in columns))
    rows = draw(st.lists(row, min_size=1, max_size=20)) + ([] if draw(often) else [draw(st.lists(cells, max_size=11))])
    file = io.StringIO()
    quoting, end = (
        draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))),
        draw(st.sampled_from(("\n", "\r\n", "\r"))),
    )
    table = csv.writer(file, delimiter="," if draw(often) else "\t", lineterminator=end, quoting=quoting)
    table.writerows([columns, *rows])
    return damaged(draw, encoded(draw, file.getvalue()))


@st.composite
def text_bytes(draw: Callable) -> bytes:
    end = draw(st.sampled_from(("\n", "\r\n", "\r")))
    return damaged(draw, encoded(draw, end.join(draw(st.lists(cells, max_size=25)))))


@st.composite
def json_bytes(draw: Callable) -> bytes:
    rows = draw(st.lists(st.one_of(st.dictionaries(names, values, max_size=4), values), max_size=8))
    return "\n".join(map(json.dumps, rows)).encode()


@st.composite
def parquet_bytes(draw: Callable) -> bytes:
    file = io.BytesIO()
    prompts = draw(st.lists(st.sampled_from(showable(60)), max_size=5))
    pd.DataFrame({draw(st.sampled_from(("prompt", "x"))): prompts}).to_parquet(file)
    return damaged(draw, file.getvalue())


def encoded(draw: Callable, text: str) -> bytes:
    """The text in any encoding; a question mark for a character that it lacks."""
    return text.encode(draw(st.sampled_from(ENCODINGS if draw(often) else UNMARKED)), "replace")


def damaged(draw: Callable, content: bytes) -> bytes:
    """The content; one in eight is cut, or has other bytes put in."""
    if draw(often):
        return content
    at, broken = draw(st.integers(0, len(content))), "\ud800".encode("utf-8", "surrogatepass")
    put = draw(st.one_of(st.sampled_from((b"", b"\0", b'"', b"\xff", broken)), st.binary(max_size=4)))
    return content[:at] + put + content[at + draw(st.sampled_from((0, 1, 2, 10**9))) :]


often = st.sampled_from((True,) * 7 + (False,))
columns = (HEADER, ("prompt", *SCORES), ("time", "caption", "id", *SCORES))
raw_tables = st.one_of(
    st.tuples(csv_bytes(*columns), st.just(".csv")),
    st.tuples(csv_bytes(*columns), st.just(".CSV")),
    st.tuples(text_bytes(), st.just(".txt")),
    st.tuples(
        st.one_of(csv_bytes(*columns), text_bytes(), json_bytes(), parquet_bytes(), st.binary(max_size=300)),
        st.sampled_from((".csv", ".txt", ".tsv", ".jsonl", ".parquet", "")),
    ),
)


def attempt(action: Callable[[], object]) -> str | None:
    """The line of a refusal, or None."""
    try:
        action()
    except FilmstillError as error:
        assert "\n" not in str(error) and "\r" not in str(error)
        str(error).encode()  # a terminal can show it
        return str(error)
    return None


def goes_through_or_is_refused(raw: bytes, suffix: str, world: str | None, **others: bytes) -> str | None:
    """The stage's refusal, with which `check` agrees. others: content of the extension and of the word list."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        raw_file, extension, words = folder / f"raw{suffix}", folder / "long.csv", folder / "words.txt"
        raw_file.write_bytes(raw)
        extension.write_bytes(others.get("extension", b"prompt,text\n"))
        words.write_bytes(others.get("words", b""))
        params = Prompts(
            raw=str(raw_file),
            world=world,
            min_characters=1,
            max_characters=30_000,
            min_latin_share=0.0,
            extension=str(extension),
            unsafe_words=str(words),
            eval_share=0.4,
        )
        refused = attempt(lambda: check_tables(params))
        failed = attempt(lambda: filter_prompts(params, out))
        assert failed == refused or (refused is None and "left after filtering" in str(failed))
        assert out.exists() == (failed is None)
        if failed is None:
            left = pd.concat([pd.read_parquet(out / f"{side}.parquet") for side in ("train", "eval")])
            rejected = pd.read_parquet(out / "rejected.parquet")
            counts = json.loads((out / "counts.json").read_text())
            assert len(left) + len(rejected) == counts["raw"] and left["id"].is_unique and left["prompt"].is_unique
            assert left["prompt"].str.len().between(1, 30_000).all()
        return failed


@fuzzed
@given(raw_tables, st.sampled_from((None, "symbols")))
@example(("\n".join(f"&#{'9' * 5000};{prompt}" for prompt in showable(9)).encode(), ".txt"), None)  # int() refused it
@example((b'"a\nb",x\n', ".csv"), None)  # the refusal quoted two lines
@example((("prompt\n" * 2 + "a\u0301\u0316" * 10_000).encode(), ".csv"), None)  # took seconds
@example(((",".join(HEADER) + "\n" + "x" * 10**6 + ",a cat,,0,0,0,0,0,0\n" * 2).encode(), ".csv"), None)  # its id
def test_any_raw_table(raw: tuple[bytes, str], world: str | None) -> None:
    goes_through_or_is_refused(*raw, world)


@fuzzed
@given(csv_bytes(("prompt", "text")), text_bytes())
def test_any_extension_and_word_list(extension: bytes, words: bytes) -> None:
    raw = "\n".join((*showable(12), "a gun", "一只红色的猫在草地上奔跑", *map(str, range(9)))).encode()
    goes_through_or_is_refused(raw, ".txt", None, extension=extension, words=words)


@fuzzed
@given(st.lists(cells, min_size=1, max_size=40), st.integers(1, 5))
def test_any_prompts_that_are_text_go_through(prompts: list[str], times: int) -> None:
    """The same few prompts again and again, in a table that nothing is wrong with."""
    file = io.StringIO()
    table = csv.writer(file)
    table.writerows([HEADER, *(("", prompt, "", *["0.1"] * 6) for prompt in [*showable(9), *prompts] * times)])
    text = file.getvalue().encode("utf-8", "ignore").replace(b"\0", b"")
    assert goes_through_or_is_refused(text, ".csv", None) is None
