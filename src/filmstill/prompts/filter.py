"""Filter a raw prompt table to train and eval prompts; record step and reason of every dropped row.

A step is a function from the remaining rows to a reason per row (None keeps the row). Near duplicates are searched
last, among prompts that the world can show, so that a first copy with a word it does not know is not kept in place of
a good one. Prompts for evaluation are chosen by hash; in the symbols world, those of held-out combinations are all for
evaluation. The same input gives the same bytes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from filmstill.errors import FilmstillError
from filmstill.params.prompts import Prompts
from filmstill.params.world import EMBEDDED
from filmstill.prompts.clean import clean, key, script_of
from filmstill.prompts.duplicates import exact_reasons, near_reasons
from filmstill.prompts.safety import read_words, score_reasons, word_reasons
from filmstill.prompts.table import read_columns, read_table
from filmstill.prompts.text_file import check_files
from filmstill.runtime.files import write_json
from filmstill.runtime.progress import progress
from filmstill.runtime.tables import write_table
from filmstill.runtime.text_table import TextTable
from filmstill.worlds.grammar import NotShowable, parse

Reasons = Sequence[str | None]
STEPS = ("empty", "length", "script", "safety", "duplicates", "world", "near_duplicates")
EVAL_PARTS = ("eval.held_out", "eval.open")  # counted in the symbols world only
SHOWN = 300  # characters of a rejected prompt that rejected.parquet keeps


def filter_prompts(params: Prompts, out: Path) -> dict[str, int]:
    """Write train.parquet, eval.parquet, rejected.parquet and counts.json to `out`; return the counts.

    Counts are `raw`, `<step>.kept` and `<step>.dropped` for STEPS, `train` and `eval`; in the symbols world also
    `eval.held_out` and `eval.open`, the eval prompts that name a held-out combination or leave the colour open.
    Raises FilmstillError if a table cannot be read or no train or no eval prompt is left.
    """
    scores = _limits(params)
    extension = read_extension(params.extension)
    reasons_of = _steps(params, scores)
    table = read_table(params.raw, list(scores))
    table["prompt"] = [clean(prompt) for prompt in table["prompt"].tolist()]
    counts, rejected = {"raw": len(table)}, []
    with progress("prompts", len(STEPS)) as bar:
        for step in STEPS:
            reasons = reasons_of[step](table)
            dropped = [reason is not None for reason in reasons]
            rows = table.loc[dropped, ["id", "prompt"]]
            rejected.append(rows.assign(step=step, reason=[reason for reason in reasons if reason is not None]))
            table = table.loc[[not drop for drop in dropped]]
            counts |= {f"{step}.dropped": len(rows), f"{step}.kept": len(table)}
            bar.update()
    kept = table[["id", "prompt"]].assign(text=extended(table["prompt"].tolist(), extension))
    for_eval, of_split = _split(kept["prompt"].tolist(), params)
    counts |= of_split
    _check_left(counts, params)
    write_table(out / "train.parquet", kept[~for_eval])
    write_table(out / "eval.parquet", kept[for_eval])
    write_table(out / "rejected.parquet", _readable(pd.concat(rejected).sort_index(kind="stable")))
    write_json(out / "counts.json", counts)
    return counts


def check_tables(params: Prompts) -> None:
    """Read every file that the stage reads. Raises FilmstillError for one that the stage would refuse."""
    check_files(params)
    read_extension(params.extension)
    read_words(params.unsafe_words)
    read_table(params.raw, list(_limits(params)))


def show_counts(counts: dict[str, int], console: Console | None = None) -> None:
    """Print how many rows each step kept and dropped, and the sizes of the split."""
    table = TextTable(f"prompts: {counts['raw']:,} raw rows", ["step", "dropped", "kept"])
    for step in STEPS:
        dropped, kept = f"{counts[f'{step}.dropped']:,}", f"{counts[f'{step}.kept']:,}"
        table.add(step.replace("_", " "), dropped, kept, end_section=step == STEPS[-1])
    for part in ("train", "eval", *EVAL_PARTS):
        if part in counts:
            table.add(part.replace(".", ", ").replace("_", " "), "", f"{counts[part]:,}")
    (console or Console()).print(table)


def _limits(params: Prompts) -> dict[str, float]:
    """The maximum of each score column that is checked."""
    return {name: limit for name, limit in vars(params.max_scores).items() if limit is not None}


def _steps(params: Prompts, scores: dict[str, float]) -> dict[str, Callable[[pd.DataFrame], Reasons]]:
    """The steps by name, in the order of STEPS. scores: maximum of each score column."""
    words = read_words(params.unsafe_words)

    def each(reason: Callable[[str], str | None]) -> Callable[[pd.DataFrame], Reasons]:
        return lambda table: [reason(prompt) for prompt in table["prompt"].tolist()]

    def unsafe(table: pd.DataFrame) -> Reasons:
        limits = {name: limit for name, limit in scores.items() if name in table}  # a text file has no scores
        by_score = score_reasons(table, limits)
        by_word = word_reasons(table["prompt"].tolist(), words) if words else [None] * len(table)
        return [score or word for score, word in zip(by_score, by_word, strict=True)]

    return {
        "empty": each(lambda prompt: None if prompt else "empty"),
        "length": each(lambda prompt: _length_reason(prompt, params.min_characters, params.max_characters)),
        "script": each(lambda prompt: not_latin(prompt, params.min_latin_share)),
        "safety": unsafe,
        "duplicates": lambda table: exact_reasons(table["prompt"].tolist(), table["id"].tolist()),
        "world": each(_unshowable if params.world == EMBEDDED else lambda _: None),
        "near_duplicates": lambda table: near_reasons(
            table["prompt"].tolist(), table["id"].tolist(), params.near_duplicates
        ),
    }


def _length_reason(prompt: str, least: int, most: int) -> str | None:
    if len(prompt) < least:
        return f"fewer than {least} characters"
    return f"more than {most} characters" if len(prompt) > most else None


def _unshowable(prompt: str) -> str | None:
    try:
        parse(prompt)
    except NotShowable as reason:
        return str(reason)
    return None


def _split(prompts: list[str], params: Prompts) -> tuple[np.ndarray, dict[str, int]]:
    """(whether each prompt is for evaluation, bool [N]; the counts of the split)."""
    for_eval = np.array([is_eval(prompt, params.eval_share) for prompt in prompts], dtype=bool)
    of_parts = {}
    if params.world == EMBEDDED:
        named = [parse(prompt) for prompt in prompts]
        held_out = np.array([each.held_out for each in named], dtype=bool)
        is_open = np.array([each.open for each in named], dtype=bool)
        for_eval |= held_out
        of_parts = {part: int((for_eval & of).sum()) for part, of in zip(EVAL_PARTS, (held_out, is_open), strict=True)}
    return for_eval, {"train": int((~for_eval).sum()), "eval": int(for_eval.sum()), **of_parts}


def _check_left(counts: dict[str, int], params: Prompts) -> None:
    """Raise FilmstillError if no train or no eval prompt is left."""
    worst = max(STEPS, key=lambda step: counts[f"{step}.dropped"])
    most = f"the step '{worst}' dropped most, {counts[f'{worst}.dropped']} of {counts['raw']} rows"
    left = counts["train"] + counts["eval"]
    if left == 0:
        raise FilmstillError(
            f"{params.raw}: no prompt is left after filtering; {most} (section prompts of params.yaml)"
        )
    held_out = f", {counts['eval.held_out']} of them held out for evaluation" if counts.get("eval.held_out") else ""
    for side in ("train", "eval"):
        if counts[side] == 0:
            raise FilmstillError(
                f"{params.raw}: no {side} prompt: {left} left after filtering{held_out}, prompts.eval_share is "
                f"{params.eval_share:g}; more rows are needed ({most})"
            )


def _readable(rejected: pd.DataFrame) -> pd.DataFrame:
    """Rejected rows with long prompts shortened to SHOWN characters."""
    long = rejected["prompt"].str.len() > SHOWN
    return rejected.assign(prompt=rejected["prompt"].where(~long, rejected["prompt"].str[:SHOWN] + "…"))


def not_latin(prompt: str, min_share: float) -> str | None:
    """A reason if too few of the prompt's letters are Latin or it has no letters, else None."""
    if prompt.isascii() and any(map(str.isalpha, prompt)):
        return None
    scripts = Counter(script_of(character) for character in prompt if character.isalpha())
    if not scripts:
        return "no letters"
    if scripts["LATIN"] >= min_share * scripts.total():
        return None
    del scripts["LATIN"]
    return f"script {max(sorted(scripts), key=lambda name: scripts[name])}"


def is_eval(prompt: str, share: float) -> bool:
    """Whether the hash of a cleaned prompt puts it into the `share` of prompts for evaluation."""
    digest = hashlib.sha256(key(prompt).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def read_extension(path: Path | str) -> dict[str, str]:
    """Extended text by the key of its prompt, from a CSV with columns `prompt` and `text`; first row per key counts."""
    columns = read_columns(Path(path), ("prompt", "text"))
    extension: dict[str, str] = {}
    for prompt, text in zip(columns["prompt"], map(clean, columns["text"]), strict=True):
        if text:
            extension.setdefault(key(clean(prompt)), text)
    return extension


def extended(prompts: Sequence[str], extension: dict[str, str]) -> list[str]:
    """The extended text of every cleaned prompt; the prompt itself if there is none."""
    return [extension.get(key(prompt), prompt) for prompt in prompts]
