"""Longer prompts from a table somebody made with a language model, looked up rather than generated here."""

from collections.abc import Sequence
from pathlib import Path

from filmstill.prompts.clean import clean, key
from filmstill.prompts.table import read_columns


def read_extension(path: Path | str) -> dict[str, str]:
    """Longer text by the key of its prompt, from a CSV with the columns `prompt` and `text`; the first row counts."""
    columns = read_columns(Path(path), ("prompt", "text"))
    extension: dict[str, str] = {}
    for prompt, text in zip(columns["prompt"], map(clean, columns["text"]), strict=True):
        if text:
            extension.setdefault(key(clean(prompt)), text)
    return extension


def extended(prompts: Sequence[str], extension: dict[str, str]) -> list[str]:
    """The longer text of every cleaned prompt, itself where there is none."""
    return [extension.get(key(prompt), prompt) for prompt in prompts]
