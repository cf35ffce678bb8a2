"""Whether the tables of the prompts stage hold as many prompts as later stages ask for."""

from contextlib import suppress
from pathlib import Path

from filmstill.artifacts import EVAL_PROMPTS, TRAIN_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.params.schema import Params
from filmstill.runtime.files import read_json
from filmstill.work import graph

COUNTS = Path("data/prompts/counts.json")


def check_prompt_counts(params: Params) -> None:
    """Raise FilmstillError for the first parameter that asks for more prompts than there are.

    It is found here before a stage spends hours. Nothing is checked while the tables are still to be made.
    """
    held: dict[str, int] = {}
    with suppress(FilmstillError):
        if graph.is_current("prompts", COUNTS, Values.read()):
            held = read_json(COUNTS)
    for key, count, table in (
        ("ode_pairs.prompts", params.ode_pairs.prompts, TRAIN_PROMPTS),
        ("ode_init.gate.prompts", params.ode_init.gate.prompts, TRAIN_PROMPTS),
        ("distill.gate.prompts", params.distill.gate.prompts, TRAIN_PROMPTS),
        ("samples.prompts", params.samples.prompts, EVAL_PROMPTS),
    ):
        found = held.get(table.stem, count)
        if count > found:
            raise FilmstillError(
                f"params.yaml: {key}: is {count}, but {table} holds {found} prompts; lower it or filter less"
            )
