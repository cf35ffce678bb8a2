"""Whether the tables of the prompts stage hold as many prompts as later stages ask for."""

from contextlib import suppress
from pathlib import Path

from filmstill.artifacts import EVAL_PROMPTS, TRAIN_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.params.load import Values
from filmstill.params.schema import Params
from filmstill.params.world import EMBEDDED
from filmstill.prompts.store import check_count
from filmstill.runtime.files import read_json
from filmstill.work import graph

COUNTS = Path("data/prompts/counts.json")


def check_prompt_counts(params: Params) -> None:
    """Raise FilmstillError for the first parameter that asks for more prompts than there are.

    It is found here before a stage spends hours. Nothing is checked while the tables are still to be made.
    """
    held = read_json(COUNTS) if _is_current(COUNTS) else {}
    of_train = {
        "ode_pairs.prompts": params.ode_pairs.prompts,
        "ode_init.gate.prompts": params.ode_init.gate.prompts,
        "distill.gate.prompts": params.distill.gate.prompts,
    }
    for key, count in of_train.items():
        check_count(key, count, TRAIN_PROMPTS, held.get("train", count))
    samples = params.samples
    if params.world.name != EMBEDDED:
        check_count("samples.prompts", samples.prompts, EVAL_PROMPTS, held.get("eval", samples.prompts))
    elif _is_current(EVAL_PROMPTS):
        # Here: imports pandas, which the open world does not need. counts.json does not hold the sizes of the groups.
        from filmstill.prompts.eval_groups import eval_groups

        eval_groups(samples, params.world.name)


def _is_current(output: Path) -> bool:
    """Whether the prompts stage has made this output from the current inputs."""
    with suppress(FilmstillError):
        return graph.is_current("prompts", output, Values.read())
    return False
