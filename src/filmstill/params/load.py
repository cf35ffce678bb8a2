"""Read sections of params.yaml into checked dataclasses.

OmegaConf rather than PyYAML: `dvc exp run -S x=2e-6` writes `2e-06`, which PyYAML reads as a string.
"""

from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from filmstill.errors import FilmstillError

Section = TypeVar("Section")
Value = TypeVar("Value")


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


def section(schema: type[Section], name: str, path: Path | str = "params.yaml") -> Section:
    """The section `name` of params.yaml as `schema`; its own `__post_init__` checks the values."""
    config = read_yaml(path)
    if name not in config:
        raise FilmstillError(
            f"{path}: the section '{name}' is missing; `python -m filmstill profile embedded` writes it"
        )
    return checked(schema, config[name], f"{path}: {name}")


def checked(schema: type[Section], values: Any, where: str) -> Section:
    """`values` as `schema`: every key known, every type right, every check of the dataclass passed."""
    known = ", ".join(schema.__dataclass_fields__)  # type: ignore[attr-defined]
    if not isinstance(values, dict | DictConfig):
        raise FilmstillError(f"{where}: is {values!r}, allowed: a mapping of {known}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0]
        raise FilmstillError(f"{where}{'.' + key if key else ''}: {reason} (allowed keys: {known})") from None
    except FilmstillError as error:
        raise FilmstillError(f"{where}.{error}") from None


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise the one line for a value that is not allowed."""
    if not condition:
        raise FilmstillError(f"{key}: is {value!r}, allowed: {allowed}")


def value(kind: type[Value], name: str, path: Path | str = "params.yaml") -> Value:
    """A top-level value of params.yaml, of the type asked for."""
    found = read_yaml(path).get(name)
    if type(found) is not kind:
        raise FilmstillError(f"{path}: {name}: is {found!r}, allowed: {kind.__name__}")
    return found
