"""YAML of bounded size, and YAML that OmegaConf and DVC read alike.

OmegaConf reads YAML 1.1 with its own rule for numbers, DVC reads params.yaml by YAML 1.2: 012, 1:30 and yes are
different values to them. A value that dvc.lock records otherwise than it was used would be recorded wrongly.
"""

from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from filmstill.errors import FilmstillError

MAX_BYTES = 1_000_000
MAX_CHARACTERS = 4000  # of one value; Python reads no number of more than 4300 digits
MAX_VALUES, MAX_DEPTH = 20_000, 50  # with every alias expanded; our longest file has 150 values, five deep


def read_text(path: Path | str) -> str:
    """The text of a YAML file. Raises FilmstillError if it is missing, too large or not UTF-8."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise FilmstillError(
            f"{path}: no such file; `python -m filmstill profile embedded` writes params.yaml"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise FilmstillError(f"{path}: not readable as YAML: {_line(error)}") from None
    if len(content) > MAX_BYTES:
        raise FilmstillError(f"{path}: is larger than {MAX_BYTES} bytes, allowed: a YAML file of parameters")
    return text


def mapping(text: str, where: str) -> DictConfig:
    """A YAML mapping as OmegaConf reads it. Raises FilmstillError for other YAML, and for too much of it."""
    try:
        refuse_too_much(text, where)
        config = OmegaConf.load(StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise FilmstillError(f"{where}: not readable as YAML: {_line(error)}") from None
    if not isinstance(config, DictConfig):
        raise FilmstillError(f"{where}: holds {type(config).__name__}, a mapping of sections is needed")
    return config


def refuse_other_readings(text: str, ours: Any, where: str) -> None:
    """Raise FilmstillError where DVC reads a value of `text` otherwise than it is in `ours`, our reading.

    where: the file that the text is from, or the override.
    """
    from ruamel.yaml import YAML, YAMLError  # DVC's reader

    try:
        theirs = YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:
        raise FilmstillError(f"{where}: DVC cannot read it as YAML: {_line(error)}") from None
    for key, here, there in _differences(ours, {} if theirs is None and ours == {} else theirs, ()):
        name = f"{'.'.join(key)}: " if key else ""
        raise FilmstillError(
            f"{where}: {name}is {here!r} here and {there!r} to DVC, which would record that; allowed: a plain decimal "
            "number, true, false, null, or text in quotes"
        )


def refuse_too_much(text: str, where: str) -> None:
    """Raise FilmstillError for YAML with too many values, aliases expanded, too long or deep ones, or with tags."""
    sizes: dict[str, int] = {}  # of anchored values
    open_collections: list[tuple[str | None, int]] = []  # anchor, values counted before it
    count = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if tag := getattr(event, "tag", None):
            raise FilmstillError(f"{where}: holds the tag {tag}, allowed: plain YAML, without tags")
        if isinstance(event, yaml.AliasEvent):
            count += sizes.get(event.anchor or "", MAX_VALUES)  # a value that contains itself has no size yet
        elif isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            sizes[anchor or ""] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_CHARACTERS:
                raise FilmstillError(f"{where}: holds a value longer than {MAX_CHARACTERS} characters")
            count += 1
            sizes[event.anchor or ""] = 1
        if count > MAX_VALUES or len(open_collections) > MAX_DEPTH:
            allowed = f"at most {MAX_VALUES} values, aliases expanded, nested {MAX_DEPTH} deep"
            raise FilmstillError(f"{where}: holds too much, allowed: {allowed}")


def _differences(ours: Any, theirs: Any, key: tuple[str, ...]) -> Any:
    """(key, our value, DVC's value) wherever the two readings differ; a key that is no text differs from itself."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        for name, value in ours.items():
            if not isinstance(name, str):
                yield (*key, str(name)), name, str(name)
            yield from _differences(value, theirs[name], (*key, str(name)))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (value, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(value, other, (*key, str(number)))
    elif type(ours) is not type(theirs) or repr(ours) != repr(theirs):  # by repr, since nan is not nan
        yield key, ours, theirs


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
