"""The raw tables and parameters that the prompts stage accepts, and its refusals of others."""

from pathlib import Path

import pandas as pd
import pytest

from filmstill.errors import FilmstillError
from filmstill.params.load import checked
from filmstill.params.prompts import Prompts
from filmstill.prompts.filter import is_eval
from filmstill.prompts.table import read_table
from prompt_tables import SCORES, refusal, run, showable, write_csv


def test_a_text_file_goes_in_unchanged(tmp_path: Path) -> None:
    prompts = showable(30)
    (tmp_path / "raw.txt").write_bytes(
        ("\ufeff" + "\r\n".join(['A cat, "quoted", with commas', "", *prompts])).encode()
    )
    kept, rejected, counts = run(str(tmp_path / "raw.txt"), tmp_path / "out")
    assert counts["raw"] == 32 and sorted(kept["prompt"]) == sorted(prompts)
    assert rejected["step"].tolist() == ["world", "empty"]
    assert kept["id"].is_unique
    (tmp_path / "more.txt").write_text("\n".join(["A new first line", *prompts, ""]))
    again, _, counts = run(str(tmp_path / "more.txt"), tmp_path / "more")
    assert counts["raw"] == 31, "the last line end starts no row"
    assert dict(zip(kept["prompt"], kept["id"], strict=True)) == dict(zip(again["prompt"], again["id"], strict=True))


def test_long_extended_prompts_pass_without_a_world(tmp_path: Path) -> None:
    lines = [f"A cinematic wide shot of scene {i}: " + " ".join(f"word{i}x{j}" for j in range(90)) for i in range(40)]
    (tmp_path / "vidprom_filtered_extended.txt").write_text("\n".join(lines) + "\n")
    kept, _, _ = run(str(tmp_path / "vidprom_filtered_extended.txt"), tmp_path / "out", world=None)
    assert sorted(kept["prompt"]) == sorted(lines)


def test_columns_by_other_names_in_any_order(tmp_path: Path) -> None:
    prompts = showable(20)
    table = pd.DataFrame({" Sexual ": 0.5, "Identity-Attack": 0.0, "Prompt": prompts, "ID": range(20), "extra": "x"})
    for name in ("toxicity", "obscene", "insult", "threat"):
        table[name] = 0.0
    table.to_csv(tmp_path / "raw.csv", index=False)
    read = read_table(tmp_path / "raw.csv", SCORES)
    assert read.columns.tolist() == ["id", "prompt", *SCORES]
    assert read["prompt"].tolist() == prompts and read["id"].tolist() == [str(i) for i in range(20)]
    assert set(read["sexual_explicit"]) == {0.5} and set(read["identity_attack"]) == {0.0}


def test_a_quoted_prompt_may_span_lines(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", ['a "red"\nstar,\r\nsways', *showable(20)])
    read = read_table(raw, SCORES)
    assert len(read) == 21 and read["prompt"][0] == 'a "red"\nstar,\r\nsways'
    assert 'a "red" star, sways' in set(run(raw, tmp_path / "out")[0]["prompt"])


def test_a_ten_megabyte_cell_costs_only_its_row(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", ["word " * 2_000_000, *showable(20)])
    kept, rejected, counts = run(raw, tmp_path / "out")
    assert len(kept) == 20 and rejected["reason"].tolist() == ["more than 1500 characters"]
    assert rejected["step"].tolist() == ["length"] and counts["length.kept"] == 20  # no later step sees it
    assert (tmp_path / "out" / "rejected.parquet").stat().st_size < 10_000


GOOD = ("uuid,prompt,time," + ",".join(SCORES) + "\n").encode()
ROW = b"r,a red star sways,t,0,0,0,0,0,0\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("raw.csv", b"", "is empty"),
        ("raw.csv", GOOD, "has a header and no rows"),
        ("raw.csv", b"uuid,caption_of,toxicity\n1,a,0\n", "lacks the columns prompt, obscene, identity_attack"),
        (
            "raw.csv",
            b"uuid,caption_of,toxicity\n1,a,0\n",
            "found: uuid, caption_of, toxicity; needed: prompt, toxicity",
        ),
        ("raw.csv", GOOD + ROW + b"r,caf\xe9,t,0,0,0,0,0,0\n", f"byte {len(GOOD + ROW) + 5}: not UTF-8 (0xe9)"),
        ("raw.txt", b"a cat\ncaf\xe9", "byte 9: not UTF-8 (0xe9)"),
        ("raw.csv", GOOD + ROW + b"r,a\0b,t,0,0,0,0,0,0\n", f"byte {len(GOOD + ROW) + 3}: a NUL byte"),
        ("raw.txt", b"PK\x03\x04\0\0", "is a zip archive, perhaps an Excel workbook"),
        ("raw.csv", GOOD + ROW + b"r,a,b,t,0,0,0,0,0,0\n", "line 3: has 10 cells where the header has 9"),
        ("raw.csv", GOOD + ROW + b"r,a\n", "line 3: has 2 cells where the header has 9"),
        ("raw.csv", GOOD + b'r,"a red star,t,0,0,0,0,0,0\n' + ROW, "line 3: not CSV (unexpected end of data)"),
        ("raw.csv", GOOD + b'r,"a" red,t,0,0,0,0,0,0\n', "line 2: not CSV"),
        ("raw.csv", bytes(range(128, 256)) * 9, "byte 0: not UTF-8 (0x80)"),
        ("raw.parquet", b"PAR1", "is a '.parquet' file, allowed: .csv (columns) or .txt (one prompt per line)"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    line = refusal(str(tmp_path / name), tmp_path / "out")
    assert message in line and line.startswith(str(tmp_path / name))


def test_a_missing_table_or_word_list_is_refused(tmp_path: Path) -> None:
    assert "none.csv: no such file" in refusal(str(tmp_path / "none.csv"), tmp_path / "out")
    raw = write_csv(tmp_path / "raw.csv", showable(20))
    assert "none.txt: no such file" in refusal(raw, tmp_path / "out", unsafe_words=str(tmp_path / "none.txt"))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filmstill.prompts.text_file.LONGEST_LINE", 2**20)
    (tmp_path / "raw.txt").write_bytes(b"a cat\n" + b"x" * (3 * 2**20))
    assert "byte 6: a line of more than 1 MB" in refusal(str(tmp_path / "raw.txt"), tmp_path / "out")


def test_nothing_left_says_which_step_dropped_most(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "raw.csv", ["a cat on a roof", "a dog on a roof", "hi"])
    line = refusal(raw, tmp_path / "out")
    assert "no prompt is left after filtering; the step 'world' dropped most, 2 of 3 rows" in line


def test_an_empty_side_of_the_split_is_refused(tmp_path: Path) -> None:
    train = next(prompt for prompt in showable(20) if not is_eval(prompt, 0.3))
    raw = write_csv(tmp_path / "raw.csv", [train])
    assert "no eval prompt: 1 left after filtering, prompts.eval_share is 0.3" in refusal(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eval_share": 0}, "prompts.eval_share: is 0.0"),
        ({"eval_share": "some"}, "prompts.eval_share"),
        ({"max_characters": 3}, "prompts.max_characters: is 3, allowed: at least min_characters (8)"),
        ({"max_scores": {"toxicity": 2}}, "prompts.max_scores.toxicity: is 2.0, allowed: null or a number in [0, 1]"),
        ({"max_scores": {"nudity": 0.2}}, "prompts.max_scores.nudity"),
        ({"near_duplicates": {"jaccard": 0}}, "prompts.near_duplicates.jaccard: is 0.0"),
        ({"near_duplicates": {"num_perm": 4}}, "prompts.near_duplicates.num_perm: is 4"),
        ({"world": "mars"}, "prompts.world: is 'mars', allowed: symbols or null"),
        ({"world": "digits"}, "prompts.world: is 'digits', allowed: symbols or null"),
        ({"wrold": "symbols"}, "prompts.wrold"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(FilmstillError) as caught:
        checked(Prompts, values, "params.yaml", "prompts")
    assert message in str(caught.value) and "\n" not in str(caught.value)
