"""The prompts stage: the rows that each step drops and their reasons, the split, the extension, comparisons."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from filmstill.params.prompts import MaxScores, Prompts
from filmstill.prompts import duplicates
from filmstill.prompts.clean import clean
from filmstill.prompts.duplicates import exact_reasons
from filmstill.prompts.filter import STEPS, filter_prompts, is_eval, show_counts
from filmstill.prompts.safety import read_words, word_reasons
from filmstill.runtime.randomness import generator
from filmstill.worlds.grammar import COMBINATIONS, parse
from filmstill.worlds.sentences import sentence
from prompt_tables import ROOT, SCORES, params, refusal, run, showable, write_csv

SIDES = ("train", "eval")
OUTPUTS = ("train.parquet", "eval.parquet", "rejected.parquet", "counts.json")


@pytest.mark.parametrize(
    ("prompt", "step", "reason"),
    [
        ("", "empty", "empty"),
        (" \t\n ", "empty", "empty"),
        ("<br/>&nbsp;\u200b", "empty", "empty"),
        ("a cat", "length", "fewer than 8 characters"),
        ("a red star " * 200, "length", "more than 1500 characters"),
        ("x" * 10_000_000, "length", "more than 1500 characters"),
        ("красная звезда качается", "script", "script CYRILLIC"),
        ("雨の東京を歩く少女、アニメ風", "script", "script CJK"),
        ("12 34 56 78 90", "script", "no letters"),
        ("😀😀😀😀😀😀😀😀😀", "script", "no letters"),
        ("a cat on the beach", "world", "no symbol"),
        ("a red star and a blue heart sway", "world", "two symbols"),
        ("a red star sways like a cat", "world", "unknown word 'like'"),
        ("a red star", "world", "no motion"),
        ("a red star moves left", "world", "no motion"),
    ],
)
def test_each_drop_has_its_step_and_reason(tmp_path: Path, prompt: str, step: str, reason: str) -> None:
    raw = write_csv(tmp_path / "raw.csv", [*showable(20), prompt])
    kept, rejected, counts = run(raw, tmp_path / "out")
    assert len(kept) == 20
    assert rejected[["id", "step", "reason"]].values.tolist() == [["row-20", step, reason]]
    assert counts[f"{step}.dropped"] == 1
    assert sum(counts[f"{name}.dropped"] for name in STEPS) == 1
    assert len(rejected["prompt"].item()) <= 301


@pytest.mark.parametrize("column", SCORES)
@pytest.mark.parametrize(
    ("score", "reason"),
    [
        ("0.2", None),
        ("0.20001", "above 0.2"),
        ("1", "above 0.2"),
        ("", "is no number in [0, 1]"),
        ("high", "is no number in [0, 1]"),
        ("nan", "is no number in [0, 1]"),
        ("-0.1", "is no number in [0, 1]"),
        ("83", "is no number in [0, 1]"),
    ],
)
def test_scores(tmp_path: Path, column: str, score: str, reason: str | None) -> None:
    raw = write_csv(tmp_path / "raw.csv", showable(20), {4: {column: score}})
    kept, rejected, _ = run(raw, tmp_path / "out")
    found = rejected[["id", "step", "reason"]].values.tolist()
    assert found == ([] if reason is None else [["row-4", "safety", f"{column} {reason}"]])
    assert len(kept) + len(found) == 20


def test_a_null_limit_needs_no_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"prompt": showable(20), "toxicity": 0.9})
    table.to_csv(tmp_path / "raw.csv", index=False)
    unlimited = MaxScores(None, None, None, None, None, None)
    assert len(run(str(tmp_path / "raw.csv"), tmp_path / "out", max_scores=unlimited)[0]) == 20


def test_unsafe_words_are_whole_words_or_phrases_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# comment\ngun\n\nMachine  Gun # phrase\nC++\n")
    words = read_words(tmp_path / "words.txt")
    assert words == ["gun", "machine gun", "c++"]
    prompts = ["a GUN.", "a machine gun", "he begun gunning", "c++", "a machine"]
    expected = ["unsafe word 'gun'", "unsafe word 'machine gun'", None, "unsafe word 'c++'", None]
    assert word_reasons(prompts, words) == expected
    raw = write_csv(tmp_path / "raw.csv", [*showable(20), "a red star sways with a Gun"])
    _, rejected, _ = run(raw, tmp_path / "out", unsafe_words=str(tmp_path / "words.txt"))
    assert rejected[["step", "reason"]].values.tolist() == [["safety", "unsafe word 'gun'"]]


def test_unsafe_words_are_cleaned_as_prompts_are(tmp_path: Path) -> None:
    lines = [
        "don\u2019t touch",
        "cafe\u0301 noir",
        "\uff53\uff50\uff41\uff4d",
        "rock&#39;n&#39;roll # x",
        "Stra\u00dfe",
    ]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    words = read_words(tmp_path / "words.txt")
    assert words == ["don't touch", "caf\u00e9 noir", "spam", "rock'n'roll", "strasse"]
    for written in ([line.split(" #")[0] for line in lines], words):
        prompts = [clean(f"a red {word}, please") for word in written]
        assert word_reasons(prompts, words) == [f"unsafe word '{word}'" for word in words]


def test_unsafe_words_are_found_in_scripts_without_spaces(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("手枪\nปืน\ngun\n")
    words = read_words(tmp_path / "words.txt")
    prompts = ["他拿着手枪走路", "手里没有枪", "เขาถือปืนอยู่", "一把gun在桌上", "他 begun 走路"]
    expected = ["unsafe word '手枪'", None, "unsafe word 'ปืน'", "unsafe word 'gun'", None]
    assert word_reasons([clean(prompt) for prompt in prompts], words) == expected


def test_exact_copies_and_used_ids_go_and_the_first_row_stays() -> None:
    prompts = ["A red cat", "a RED cat", "a blue cat", "a green cat", "a red cat"]
    ids = ["a", "b", "c", "c", "e"]
    assert exact_reasons(prompts, ids) == [None, "same as a", None, "id c is taken", "same as a"]


def test_rows_added_anywhere_move_nobody(tmp_path: Path) -> None:
    prompts = showable(300)
    few, many = tmp_path / "few", tmp_path / "many"
    filter_prompts(params(write_csv(tmp_path / "few.csv", prompts[100:200])), few)
    filter_prompts(params(write_csv(tmp_path / "many.csv", prompts)), many)
    for side in ("train", "eval"):
        before, after = (set(pd.read_parquet(folder / f"{side}.parquet")["prompt"]) for folder in (few, many))
        assert before and before == after & set(prompts[100:200])


def test_split_share_and_what_it_looks_at() -> None:
    prompts = showable(3000)
    share = sum(is_eval(prompt, 0.15) for prompt in prompts) / len(prompts)
    assert 0.12 < share < 0.18
    assert all(is_eval(prompt, 0.3) for prompt in prompts if is_eval(prompt, 0.15))
    assert all(is_eval(prompt, 0.15) == is_eval(prompt.upper(), 0.15) for prompt in prompts)


@pytest.mark.parametrize("header", [("prompt", "text"), ("text", "extended prompt")])
def test_extension_is_another_column(tmp_path: Path, header: tuple[str, str]) -> None:
    prompts = showable(20)
    rows = [
        header,
        (f" {prompts[0].upper()} ", "A  long <b>text</b>."),
        (prompts[0], "Second."),
        (prompts[1], " "),
    ]
    with (tmp_path / "long.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    kept, _, _ = run(write_csv(tmp_path / "raw.csv", prompts), tmp_path / "out", extension=str(tmp_path / "long.csv"))
    texts = dict(zip(kept["prompt"], kept["text"], strict=True))
    assert texts.pop(prompts[0]) == "A long text."
    assert len(texts) == 19 and all(prompt == text for prompt, text in texts.items())


def test_an_extension_that_is_no_table_is_refused(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", showable(20))
    (tmp_path / "long.csv").write_text("prompt,answer\na,b\n")
    assert "lacks the column text; found: prompt, answer" in refusal(
        raw, tmp_path / "out", extension=str(tmp_path / "long.csv")
    )
    assert "no such file" in refusal(raw, tmp_path / "out", extension=str(tmp_path / "none.csv"))


def test_the_raw_table_gives_enough_and_every_step_drops_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    counts = filter_prompts(Prompts(), tmp_path)
    assert counts["raw"] == 3000 and counts["train"] >= 1100 and counts["eval"] >= 200
    assert all(counts[f"{step}.dropped"] > 0 for step in STEPS)
    left = counts["raw"]
    for step in STEPS:
        left -= counts[f"{step}.dropped"]
        assert counts[f"{step}.kept"] == left
    assert left == counts["train"] + counts["eval"]
    assert json.loads((tmp_path / "counts.json").read_text()) == counts
    tables = {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("train", "eval", "rejected")}
    assert sum(map(len, tables.values())) == 3000
    assert tables["train"].columns.tolist() == tables["eval"].columns.tolist() == ["id", "prompt", "text"]
    assert tables["rejected"].columns.tolist() == ["id", "prompt", "step", "reason"]
    assert not set(tables["train"]["id"]) & set(tables["eval"]["id"])


def test_the_raw_table_holds_every_kind_of_eval_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what samples and evaluate score apart."""
    monkeypatch.chdir(ROOT)
    counts = filter_prompts(Prompts(), tmp_path)
    train, for_eval = (
        [parse(prompt) for prompt in pd.read_parquet(tmp_path / f"{side}.parquet")["prompt"]]
        for side in ("train", "eval")
    )
    assert not any(shown.held_out for shown in train)
    held_out = [shown for shown in for_eval if shown.held_out]
    assert len(set(held_out)) == 24 and len(held_out) == counts["eval.held_out"] >= 96
    left_open = [shown for shown in for_eval if shown.open]
    assert len(set(left_open)) >= 24 and len(left_open) == counts["eval.open"] >= 32
    assert len(for_eval) - len(held_out) - len(left_open) >= 128, "full prompts of trained combinations"
    assert len({shown for shown in train if not shown.open}) >= 256, "nearly all of the 264 trained combinations"
    assert 0.13 < sum(shown.open for shown in train) / len(train) < 0.17


def test_prompts_of_held_out_combinations_are_all_for_evaluation(tmp_path: Path) -> None:
    held_out = [sentence(a, generator(0, "held out", i)) for i, a in enumerate(COMBINATIONS) if a.held_out]
    raw = write_csv(tmp_path / "raw.csv", [*showable(100), *held_out])
    splits = {}
    for world in ("symbols", None):
        counts = filter_prompts(params(raw, world=world), tmp_path / f"{world}")
        splits[world] = [set(pd.read_parquet(tmp_path / f"{world}/{side}.parquet")["prompt"]) for side in SIDES]
        assert [counts[side] for side in SIDES] == [len(prompts) for prompts in splits[world]]
        assert counts.get("eval.held_out") == (24 if world else None) and counts.get("eval.open", 0) == 0
    (train, for_eval), (train_by_hash, eval_by_hash) = splits.values()
    assert set(held_out) <= for_eval and not set(held_out) & train
    assert train == train_by_hash - set(held_out) and for_eval == eval_by_hash | set(held_out)
    assert 0 < len(set(held_out) & train_by_hash) < 24, "another world's split is by hash alone"


def test_nothing_but_held_out_prompts_leaves_no_train_prompt(tmp_path: Path) -> None:
    held_out = next(a for a in COMBINATIONS if a.held_out)
    raw = write_csv(tmp_path / "raw.csv", [sentence(held_out, generator(0, "held out", 0))])
    message = "no train prompt: 1 left after filtering, 1 of them held out for evaluation, prompts.eval_share is 0.3"
    assert message in refusal(raw, tmp_path / "out")


def test_same_input_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("a", "b"):
        filter_prompts(Prompts(), tmp_path / name)
    for name in OUTPUTS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(OUTPUTS)


def test_the_raw_table_is_what_its_script_makes(tmp_path: Path) -> None:
    source = (ROOT / "data/prompts/make_raw.py").read_text(encoding="utf-8")
    scope = {"__name__": "make_raw", "__file__": str(tmp_path / "make_raw.py")}
    exec(compile(source, "make_raw.py", "exec"), scope)
    scope["main"]()  # type: ignore[operator]
    made, committed = tmp_path / "raw.csv", ROOT / "data/prompts/raw.csv"
    assert made.read_bytes() == committed.read_bytes()
    assert committed.stat().st_size < 1_000_000


def test_counts_are_shown(tmp_path: Path) -> None:
    counts = filter_prompts(
        params(write_csv(tmp_path / "raw.csv", [*showable(20), "a cat on a roof"])), tmp_path / "out"
    )
    console = Console(file=io.StringIO(), width=80)
    show_counts(counts, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "21 raw rows" in shown and "near duplicates" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["world", "1", "20"] in lines and ["eval,", "held", "out", "0"] in lines and ["eval,", "open", "0"] in lines
    assert ["eval", str(counts["eval"])] in lines


@pytest.mark.parametrize("world", ["symbols", None])
def test_twenty_thousand_rows_take_less_than_two_comparisons_each(
    tmp_path: Path, world: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pair would be 10,000 comparisons per row; MinHash proposes a few."""
    compared: list[str] = []
    monkeypatch.setattr(duplicates._Kept, "_similar", counting(compared, duplicates._Kept._similar))
    words = [f"w{i * i % 4999:x}" for i in range(5000)]
    other = [" ".join(words[(i * 31 + j * j) % 5000] for j in range(5 + i % 40)) + " — café" for i in range(10_000)]
    raw = write_csv(tmp_path / "raw.csv", [*showable(9_000), *other, *other[:1000]])
    counts = filter_prompts(params(raw, world=world), tmp_path / "out")
    assert 0 < len(compared) < 2 * counts["raw"]
    assert counts["raw"] == 20_000 and counts["duplicates.dropped"] >= 1000
    assert counts["near_duplicates.kept"] >= 9_000


def counting(calls: list[str], function: Callable[..., bool]) -> Callable[..., bool]:
    def counted(*given: object) -> bool:
        calls.append(function.__name__)
        return function(*given)

    return counted
