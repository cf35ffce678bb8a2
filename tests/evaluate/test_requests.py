"""Which eval prompts each arm is given, in how many seeds, and what is said of too few."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from filmstill.artifacts import EVAL_PROMPTS, TRAIN_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.evaluate.requests import (
    ARMS,
    CHANGED_ARM,
    LONG_ARM,
    PICTURE_ARM,
    arm_of,
    every_arm,
    following,
    requests,
    requests_by_shard,
)
from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED, OPEN
from filmstill.runtime.tables import write_table
from filmstill.worlds.grammar import ATTRIBUTES, COMBINATIONS, Attributes, parse
from symbols_samples import prompts_of

HELD_OUT = [each for each in COMBINATIONS if each.held_out]
TRAINED = [each for each in COMBINATIONS if not each.held_out]
OPEN_ENDED = [replace(each, colour=None) for each in TRAINED[::23]]  # 12
PARAMS = Samples(
    prompts=20, seeds=2, held_out_prompts=26, open_prompts=8, open_seeds=3, long_prompts=5, changed_prompts=7
)


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The eval table: 30 prompts of combinations trained on, each held-out combination twice, and the open prompts."""
    monkeypatch.chdir(tmp_path)
    asked = [*HELD_OUT[:2], *TRAINED[:30], *(each for each in HELD_OUT for _ in (0, 1)), *OPEN_ENDED]
    prompts = prompts_of(asked)
    written = pd.DataFrame({"id": [f"p{i:03d}" for i in range(len(asked))], "prompt": prompts, "text": prompts})
    write_table(EVAL_PROMPTS, written)
    trained = prompts_of(TRAINED[:29])  # not the last
    write_table(TRAIN_PROMPTS, pd.DataFrame({"id": trained, "prompt": trained, "text": trained}))
    return written


def test_clips_are_of_three_groups(table: pd.DataFrame):
    found = requests(PARAMS, EMBEDDED, "teacher")
    assert list(found.columns) == ["id", "prompt", "text", "group", "seed"]
    assert Counter(found["group"]) == {"main": 40, "held_out": 26, "open": 24}
    assert len(found) == PARAMS.clips(EMBEDDED) and not found.duplicated(["id", "seed"]).any()
    main = found[found["group"] == "main"]
    assert main["id"].drop_duplicates().tolist() == table["id"][2:22].tolist(), "in the order of the table"
    assert main["seed"].tolist() == [0, 1] * 20
    assert found.loc[found["group"] == "open", "seed"].tolist() == [0, 1, 2] * 8


def test_every_short_arm_is_given_the_same():
    first = requests(PARAMS, EMBEDDED, ARMS[0])
    assert all(requests(PARAMS, EMBEDDED, arm).equals(first) for arm in ARMS[1:])


def test_every_held_out_combination_comes_once_before_one_comes_twice(table: pd.DataFrame):
    found = requests(PARAMS, EMBEDDED, "student").query("group == 'held_out'")
    shown = [parse(prompt) for prompt in found["prompt"]]
    assert set(shown[: len(HELD_OUT)]) == set(HELD_OUT) and shown[:2] == HELD_OUT[:2]
    assert len(shown) == 26 and set(found["seed"]) == {0}
    assert found["id"].is_unique and found["id"].iloc[0] == table["id"][0]


def test_open_prompts_are_the_first_of_the_table(table: pd.DataFrame):
    found = requests(PARAMS, EMBEDDED, "student").query("group == 'open'").drop_duplicates("id")
    assert found["id"].tolist() == table["id"][-len(OPEN_ENDED) :][:8].tolist()
    assert all(parse(prompt).open for prompt in found["prompt"])


def test_main_prompts_are_of_combinations_of_train_prompts(table: pd.DataFrame):
    """A rare combination may have eval prompts only: no student has seen it."""
    found = requests(replace(PARAMS, prompts=29), EMBEDDED, "student").query("group == 'main'")
    assert {parse(prompt) for prompt in found["prompt"]} == set(TRAINED[:29])


def test_long_streams_are_of_the_first_main_prompts(table: pd.DataFrame):
    found = requests(PARAMS, EMBEDDED, LONG_ARM)
    assert found["id"].tolist() == table["id"][2:7].tolist()
    assert set(found["seed"]) == {0} and set(found["group"]) == {"main"}
    assert found.index.tolist() == [0, 1, 2, 3, 4], "its clips are numbered from 0"


def test_pictures_and_changing_prompts_are_the_first_main_prompts_with_the_first_clips_seed(table: pd.DataFrame):
    """So that their noise is that of the student's first clip of each prompt, and the picture that of its real clip."""
    pictures, changed = (requests(PARAMS, EMBEDDED, arm) for arm in (PICTURE_ARM, CHANGED_ARM))
    student = requests(PARAMS, EMBEDDED, "student").query("group == 'main' and seed == 0").head(7)
    assert pictures.equals(student.reset_index(drop=True))
    assert changed[list(pictures.columns)].equals(pictures)
    assert set(changed["change_frame"]) == {PARAMS.change_frame}
    text = dict(zip(table["prompt"], table["text"], strict=True))
    assert set(changed["next_prompt"]) <= set(pictures["prompt"])
    assert changed["next_text"].tolist() == [text[prompt] for prompt in changed["next_prompt"]]
    for row in changed.itertuples():
        assert parse(row.prompt) != parse(row.next_prompt)


def test_a_prompt_changes_to_the_next_that_differs_in_all_or_else_in_most():
    a, b, c, d = (
        Attributes(*each.split()) for each in ("star red sways", "star red bobs", "sun blue bobs", "sun blue sways")
    )
    assert following([a, b, c]) == [2, 2, 0], "b shares a motion with c, symbol and colour with a"
    assert following([a, a, b]) == [2, 2, 0]
    assert following([a, b, c, d]) == [2, 3, 0, 1]
    assert following([a, a]) == [None, None] and following([a]) == [None]
    for index, other in enumerate(following(TRAINED)):
        differing = [getattr(TRAINED[index], name) != getattr(TRAINED[other], name) for name in ATTRIBUTES]
        assert all(differing), "in the whole world there is always one"


def test_prompts_that_all_name_the_same_are_one_line(table: pd.DataFrame):
    same = table.assign(prompt=table["prompt"][2], text=table["text"][2])
    write_table(EVAL_PROMPTS, same)
    params = replace(PARAMS, held_out_prompts=0, open_prompts=0)
    assert len(requests(params, EMBEDDED, PICTURE_ARM)) == 7
    with pytest.raises(FilmstillError) as raised:
        requests(params, EMBEDDED, CHANGED_ARM)
    assert str(raised.value).startswith("params.yaml: samples.changed_prompts: is 7, but the first prompts of ")
    assert "\n" not in str(raised.value)


def test_neither_arm_is_made_where_no_prompts_are_or_no_judge_is():
    assert every_arm(PARAMS, EMBEDDED) == (*ARMS, LONG_ARM, PICTURE_ARM, CHANGED_ARM)
    assert every_arm(replace(PARAMS, changed_prompts=0), EMBEDDED) == (*ARMS, LONG_ARM)
    assert every_arm(PARAMS, OPEN) == (*ARMS[1:], LONG_ARM)


@pytest.mark.parametrize(
    ("batch", "most", "sizes"), [(7, 4, [21, 21, 21, 27]), (30, 4, [30, 30, 30]), (7, 1, [90]), (100, 4, [90])]
)
def test_the_teachers_shards_are_whole_batches_of_its_clips(batch: int, most: int, sizes: list[int]):
    shards = requests_by_shard(replace(PARAMS, batch=batch, teacher_shards=most), EMBEDDED)
    of_teacher = {name: table for name, table in shards.items() if arm_of(name) == "teacher"}
    assert list(of_teacher) == [f"teacher-{number:04d}" for number in range(len(sizes))]
    assert [len(table) for table in of_teacher.values()] == sizes
    assert pd.concat(of_teacher.values()).equals(requests(PARAMS, EMBEDDED, "teacher"))
    others = [arm for arm in every_arm(PARAMS, EMBEDDED) if arm != "teacher"]
    assert [name for name in shards if name not in of_teacher] == [f"{arm}-0000" for arm in others]
    assert shards["student_long-0000"].equals(requests(PARAMS, EMBEDDED, LONG_ARM))


def test_in_the_open_world_every_prompt_is_of_the_main_group(table: pd.DataFrame):
    found = requests(PARAMS, OPEN, "teacher")
    assert found["id"].drop_duplicates().tolist() == table["id"][:20].tolist()
    assert set(found["group"]) == {"main"} and len(found) == PARAMS.clips(OPEN) == 40


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"prompts": 30}, "samples.prompts: is 30, but {table} holds 29 prompts of combinations trained on"),
        (
            {"held_out_prompts": 51},
            "samples.held_out_prompts: is 51, but {table} holds 50 prompts of held-out combinations",
        ),
        (
            {"open_prompts": 13},
            "samples.open_prompts: is 13, but {table} holds 12 prompts that leave the colour open",
        ),
    ],
)
def test_too_few_prompts_of_a_group_are_one_line(change: dict[str, int], line: str):
    assert len(requests(Samples(**{**vars(PARAMS), **{name: n - 1 for name, n in change.items()}}), EMBEDDED, "real"))
    with pytest.raises(FilmstillError) as raised:
        requests(Samples(**{**vars(PARAMS), **change}), EMBEDDED, "real")
    assert str(raised.value) == f"params.yaml: {line.format(table=EVAL_PROMPTS)}; lower it or filter less"


def test_groups_may_be_left_out():
    found = requests(Samples(prompts=3, seeds=1, held_out_prompts=0, open_prompts=0, long_prompts=1), EMBEDDED, "real")
    assert set(found["group"]) == {"main"} and len(found) == 3
