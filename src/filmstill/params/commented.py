"""Parameters as the text of params.yaml: every value with the sentence of its key."""

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from filmstill.params.keys import SENTENCE

WIDTH = 120


def commented(params: Any) -> str:
    """YAML of a dataclass of sections. A section's comment is its docstring's first paragraph, a key's its sentence."""
    return "\n".join(_lines(params, 0)) + "\n"


def _lines(section: Any, depth: int) -> Iterator[str]:
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            if depth == 0:
                yield ""
            yield from _comment(_summary(value), depth)
            yield f"{'  ' * depth}{field.name}:"
            yield from _lines(value, depth + 1)
        else:
            yield from _value(field.name, value, field.metadata.get(SENTENCE, ""), depth)


def _value(name: str, value: Any, sentence: str, depth: int) -> Iterator[str]:
    """The key with its sentence behind it, or above it where the line would be too long."""
    written = OmegaConf.to_yaml(OmegaConf.create({name: value})).rstrip("\n").splitlines()
    lines = [f"{'  ' * depth}{line}" for line in written]
    behind = f"{lines[0]}  # {sentence}"
    if len(lines) == 1 and len(behind) <= WIDTH:
        yield behind if sentence else lines[0]
    else:
        yield from _comment(sentence, depth)
        yield from lines


def _summary(section: Any) -> str:
    """A section's docstring up to its first empty line, as one line."""
    return " ".join((type(section).__doc__ or "").split("\n\n")[0].split())


def _comment(sentence: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield from textwrap.wrap(sentence, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
