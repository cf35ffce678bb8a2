"""Too few prompts of a group are found before a stage spends hours, once the prompts stage has made its tables."""

from pathlib import Path

import pandas as pd
import pytest

from filmstill.artifacts import EVAL_PROMPTS, TRAIN_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.params.schema import Params
from filmstill.params.world import EMBEDDED, OPEN
from filmstill.runtime.files import write_json
from filmstill.runtime.tables import write_table
from filmstill.work import prompt_counts
from filmstill.work.prompt_counts import COUNTS, check_prompt_counts
from filmstill.worlds.grammar import COMBINATIONS
from symbols_samples import prompts_of

GROUPS = {"prompts": 2, "held_out_prompts": 3, "open_prompts": 0, "long_prompts": 1}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters that the tables in the current folder are enough for: two trained and three held-out prompts."""
    monkeypatch.chdir(tmp_path)
    held_out = [each for each in COMBINATIONS if each.held_out][:3]
    prompts = prompts_of([*held_out, *(each for each in COMBINATIONS if not each.held_out)][:5])
    table = pd.DataFrame({"id": list("abcde"), "prompt": prompts, "text": prompts})
    write_table(EVAL_PROMPTS, table)
    write_table(TRAIN_PROMPTS, table[3:])
    write_json(COUNTS, {"train": 100_000, "eval": 5})
    monkeypatch.setattr(prompt_counts, "_is_current", lambda _output: True)
    made = Params()
    assert made.world.name == EMBEDDED
    for name, value in GROUPS.items():
        setattr(made.samples, name, value)
    return made


def test_enough_prompts_pass(params: Params):
    check_prompt_counts(params)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("prompts", "samples.prompts: is 3, but data/prompts/eval.parquet holds 2 prompts of combinations trained on"),
        (
            "held_out_prompts",
            "samples.held_out_prompts: is 4, but data/prompts/eval.parquet holds 3 prompts of held-out",
        ),
        (
            "open_prompts",
            "samples.open_prompts: is 1, but data/prompts/eval.parquet holds 0 prompts that leave the colour",
        ),
    ],
)
def test_one_too_many_of_a_group_is_one_line(params: Params, key: str, line: str):
    setattr(params.samples, key, GROUPS[key] + 1)
    with pytest.raises(FilmstillError) as raised:
        check_prompt_counts(params)
    refused = str(raised.value)
    assert refused.startswith(f"params.yaml: {line}") and refused.endswith("; lower it or filter less")


@pytest.mark.parametrize("world", [EMBEDDED, OPEN])
@pytest.mark.parametrize(("key", "held"), [("ode_pairs.prompts", 7), ("samples.prompts", 2)])
def test_the_number_in_the_line_is_the_most_that_passes(params: Params, world: str, key: str, held: int):
    """In the symbols world, samples.prompts counts two of the five eval prompts."""
    params.world.name = world
    held = 5 if (world, key) == (OPEN, "samples.prompts") else held
    write_json(COUNTS, {"train": 7, "eval": 5})
    for section in (params.ode_init, params.distill):
        section.gate.prompts = 7
    params.ode_pairs.prompts, section, name = 7, *key.split(".")
    setattr(getattr(params, section), name, held)
    check_prompt_counts(params)
    setattr(getattr(params, section), name, held + 1)
    with pytest.raises(FilmstillError, match=rf"^params\.yaml: {key}: is {held + 1}, but \S+ holds {held} prompts"):
        check_prompt_counts(params)


def test_a_table_that_is_to_be_made_anew_is_not_read(params: Params, monkeypatch: pytest.MonkeyPatch):
    params.samples.prompts = 4
    monkeypatch.setattr(prompt_counts, "_is_current", lambda output: output != EVAL_PROMPTS)
    check_prompt_counts(params)
