"""Read sections of params.yaml into checked dataclasses.

OmegaConf rather than PyYAML: `dvc exp run -S x=2e-6` writes `2e-06`, which PyYAML reads as a string.
"""

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from filmstill.errors import FilmstillError, require

Section = TypeVar("Section")

SEEDS = 2**63  # as many as fit in 64 bits with their sign, so that every table and library can hold one


def read_yaml(path: Path | str) -> DictConfig:
    """A YAML mapping as OmegaConf reads it. Raises FilmstillError if it is missing or not a mapping."""
    try:
        config = OmegaConf.load(path)
    except FileNotFoundError:
        raise FilmstillError(
            f"{path}: no such file; `python -m filmstill profile embedded` writes params.yaml"
        ) from None
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise FilmstillError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise FilmstillError(f"{path}: holds {type(config).__name__}, a mapping of sections is needed")
    return config


def read_plain(path: Path | str) -> dict[str, Any]:
    """A YAML file as plain dictionaries and lists, numbers read as OmegaConf reads them."""
    return to_plain(read_yaml(path), str(path))


def to_plain(config: Any, where: str) -> dict[str, Any]:
    """Every interpolation resolved; refuses one that leads nowhere and a value still to be filled in (???)."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise FilmstillError(f"{where}: {error.full_key}: {str(error).splitlines()[0]}") from None


def section(schema: type[Section], name: str, path: Path | str = "params.yaml") -> Section:
    """The section `name` of params.yaml as `schema`; its own `__post_init__` checks the values."""
    values = read_plain(path)
    if name not in values:
        raise FilmstillError(
            f"{path}: the section '{name}' is missing; `python -m filmstill profile embedded` writes it"
        )
    return checked(schema, values[name], str(path), name)


def checked(schema: type[Section], values: Any, where: str, name: str = "") -> Section:
    """`values` as `schema`: every key known, every type right, every check of the dataclass passed.

    where: the file or profile they come from; name: their section there, dotted, "" for the whole.
    """
    known = ", ".join(field.name for field in fields(schema))  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise FilmstillError(f"{where}: {name}: is {values!r}, allowed: a mapping of {known}")
    for field in fields(schema):  # type: ignore[arg-type]
        if is_dataclass(field.type) and field.name in values:
            checked(field.type, values[field.name], where, _dotted(name, field.name))  # type: ignore[arg-type]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        for key, number in merged.items():
            require(not isinstance(number, float) or math.isfinite(number), str(key), number, "a finite number")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = _dotted(name, getattr(error, "full_key", None) or "")
        why = "no such key" if isinstance(error, ConfigKeyError) else str(error).splitlines()[0]
        raise FilmstillError(f"{where}: {key}: {why} (allowed keys: {known})") from None
    except FilmstillError as error:
        raise FilmstillError(f"{where}: {_dotted(name, str(error))}") from None


def _dotted(*names: str) -> str:
    return ".".join(filter(None, names))


def read_seed(path: Path | str = "params.yaml") -> int:
    """The seed of params.yaml."""
    found: Any = read_plain(path).get("seed")
    require(type(found) is int and 0 <= found < SEEDS, f"{path}: seed", found, "an integer in [0, 2**63)")
    return found
