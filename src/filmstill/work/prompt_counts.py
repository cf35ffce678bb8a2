"""Whether the tables of the prompts stage hold as many prompts as later stages ask for."""

from contextlib import suppress
from pathlib import Path

from filmstill.artifacts import EVAL_PROMPTS, TRAIN_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.params.schema import Params
from filmstill.params.world import EMBEDDED
from filmstill.runtime.files import read_json
from filmstill.work import graph

COUNTS = Path("data/prompts/counts.json")


def check_prompt_counts(params: Params) -> None:
    """Raise FilmstillError for the first parameter that asks for more prompts than there are.

    It is found here before a stage spends hours. Nothing is checked while the tables are still to be made.
    """
    held: dict[str, int] = {}
    if _is_current(COUNTS):
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
    if params.world.name == EMBEDDED and _is_current(EVAL_PROMPTS):
        # Here: imports pandas, which the open world does not need. counts.json does not hold the sizes of the groups.
        from filmstill.prompts.eval_groups import eval_groups

        eval_groups(params.samples, params.world.name)


def _is_current(output: Path) -> bool:
    """Whether the prompts stage has made this output from the current inputs."""
    with suppress(FilmstillError):
        return graph.is_current("prompts", output, Values.read())
    return False
