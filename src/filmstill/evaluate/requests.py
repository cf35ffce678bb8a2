"""The arms of a comparison, and the prompts and seeds requested of each.

Imports neither torch nor, before `requests` is called, pandas: both take long.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from filmstill.artifacts import EVAL_PROMPTS
from filmstill.errors import FilmstillError
from filmstill.params.samples import Samples
from filmstill.params.world import EMBEDDED

if TYPE_CHECKING:
    import pandas as pd

    from filmstill.worlds.grammar import Attributes

ARMS = ("real", "teacher", "undistilled", "init", "student")  # the same prompts and seeds, clips of one length
LONG_ARM = "student_long"  # the student's long stream, for drift
PICTURE_ARM = "student_picture"  # the student's clips that begin with a picture, the first frame of the real clip
CHANGED_ARM = "student_changed"  # the student's streams whose prompt changes
CHANGE_COLUMNS = ("next_prompt", "change_frame")  # of CHANGED_ARM's requests: the second prompt, and where it begins
TIMING = "timing"  # the shard that times the arms, in turns
TIMED_AS = {"undistilled": "student", "init": "student"}  # the same network with other weights takes the same time


def short_arms(world: str) -> tuple[str, ...]:
    """Arms whose clips are compared in the world of this name: only symbols can be drawn for real."""
    return ARMS if world == EMBEDDED else ARMS[1:]


def every_arm(params: Samples, world: str) -> tuple[str, ...]:
    """`short_arms`, the long stream's arm, and the two of pictures and changing prompts if they are made."""
    return (*short_arms(world), LONG_ARM, *((PICTURE_ARM, CHANGED_ARM) if params.changed(world) else ()))


def timed_arms(world: str) -> tuple[str, ...]:
    """The arms that are timed."""
    return tuple(arm for arm in short_arms(world) if arm not in TIMED_AS)


def requests_by_shard(params: Samples, world: str) -> "dict[str, pd.DataFrame]":
    """Rows of `requests` of every shard of every arm, by its name: whole batches of them."""
    shards = {}
    for arm in every_arm(params, world):
        table = requests(params, world, arm)
        batches = range(0, len(table), params.batch)
        number = min(params.teacher_shards, len(batches)) if arm == "teacher" else 1
        starts = [batches[len(batches) * shard // number] for shard in range(number)]
        for shard, (start, end) in enumerate(pairwise([*starts, len(table)])):
            shards[f"{arm}-{shard:04d}"] = table.iloc[start:end]
    return shards


def arm_of(shard: str) -> str:
    """The arm of a shard of this name."""
    return shard.rpartition("-")[0]


def requests(params: Samples, world: str, arm: str) -> "pd.DataFrame":
    """Clips requested of an arm in the world of this name: columns id, prompt, text, group, seed.

    Groups are in the order of `eval_groups`, the seeds of a prompt in neighbouring rows. Long streams, clips that begin
    with a picture and streams whose prompt changes are requested for the first prompts of `main`, with seed 0; the last
    also have the columns next_text and CHANGE_COLUMNS.
    """
    import pandas as pd

    from filmstill.prompts.eval_groups import HELD_OUT, MAIN, OPEN_ENDED, eval_groups

    groups = {name: prompts.assign(group=name) for name, prompts in eval_groups(params, world).items()}
    if arm in (LONG_ARM, PICTURE_ARM, CHANGED_ARM):
        count = params.long_prompts if arm == LONG_ARM else params.changed(world)
        table = groups[MAIN].head(count).assign(seed=0).reset_index(drop=True)
        return _with_changes(table, params) if arm == CHANGED_ARM else table
    seeds = {MAIN: params.seeds, HELD_OUT: 1, OPEN_ENDED: params.open_seeds}
    tables = [
        prompts.merge(pd.DataFrame({"seed": range(seeds[name])}), how="cross") for name, prompts in groups.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _with_changes(table: "pd.DataFrame", params: Samples) -> "pd.DataFrame":
    """`table` with the prompt that each one changes to, and where. Raises FilmstillError if all show the same."""
    from filmstill.worlds.grammar import parse_all

    found = following(parse_all(table["prompt"].tolist(), EVAL_PROMPTS))
    others = [other for other in found if other is not None]
    if len(others) < len(found):
        raise FilmstillError(
            f"params.yaml: samples.changed_prompts: is {len(table)}, but the first prompts of combinations trained on "
            f"in {EVAL_PROMPTS} all name the same one; raise it, or set it to 0"
        )
    changed = {f"next_{name}": table[name].iloc[others].tolist() for name in ("prompt", "text")}
    return table.assign(**changed, change_frame=params.change_frame)


def following(asked: "list[Attributes]") -> list[int | None]:
    """Index of the prompt that each one changes to: of those that differ in most attributes the next, cyclically.

    None where every other prompt asks for the same.
    """
    from filmstill.worlds.grammar import ATTRIBUTES

    found: list[int | None] = []
    for index, before in enumerate(asked):
        differing = {
            other: sum(getattr(before, name) != getattr(asked[other], name) for name in ATTRIBUTES)
            for other in (*range(index + 1, len(asked)), *range(index))
        }
        best = max(differing, key=differing.__getitem__, default=index)
        found.append(best if differing.get(best) else None)
    return found
