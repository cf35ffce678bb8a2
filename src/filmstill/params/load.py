"""Read sections of params.yaml into checked dataclasses.

OmegaConf rather than PyYAML: `dvc exp run -S x=2e-6` writes `2e-06`, which PyYAML reads as a string.
"""

import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from filmstill.errors import FilmstillError, require
from filmstill.params.yaml_text import mapping, read_text, refuse_other_readings

Section = TypeVar("Section")

SEEDS = 2**63  # as many as fit in 64 bits with their sign, so that every table and library can hold one

KINDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list of text",
    NoneType: "null",
}


def read_plain(path: Path | str) -> dict[str, Any]:
    """A YAML file as plain dictionaries and lists, numbers read as OmegaConf reads them."""
    return to_plain(mapping(read_text(path), str(path)), str(path))


def to_plain(config: Any, where: str) -> dict[str, Any]:
    """Every interpolation resolved; refuses one that leads nowhere and a value still to be filled in (???)."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise FilmstillError(f"{where}: {error.full_key}: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True)
class Values:
    """Values of params.yaml, read once: what a stage computes with is what its key was made of."""

    values: dict[str, Any]
    where: str = "params.yaml"

    @classmethod
    def read(cls, path: Path | str = "params.yaml") -> "Values":
        """The values of params.yaml. Raises FilmstillError for one that DVC reads and records otherwise."""
        text, where = read_text(path), str(path)
        values = to_plain(mapping(text, where), where)
        refuse_other_readings(text, values, where)
        return cls(values, where)

    def section(self, schema: type[Section], name: str) -> Section:
        """The section `name` as `schema`; its own `__post_init__` checks the values."""
        return checked(schema, self[name], self.where, name)

    @property
    def seed(self) -> int:
        found = self["seed"]
        require(type(found) is int and 0 <= found < SEEDS, f"{self.where}: seed", found, "an integer in [0, 2**63)")
        return found

    def __getitem__(self, name: str) -> Any:
        """A section or the seed as it was read. Raises FilmstillError where it is missing."""
        if name not in self.values:
            raise FilmstillError(
                f"{self.where}: '{name}' is missing; `python -m filmstill profile embedded` writes every value"
            )
        return self.values[name]


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
        _refuse_other_types(schema, merged, values)
        for key, number in merged.items():
            require(not isinstance(number, float) or math.isfinite(number), str(key), number, "a finite number")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OverflowError:
        raise FilmstillError(f"{where}: {name}: holds a number that is too large") from None
    except ValidationError as error:
        key = str(error.full_key).split("[")[0]
        raise FilmstillError(
            f"{where}: {_dotted(name, key)}: is {values[key]!r}, allowed: {_kind(schema, key)}"
        ) from None
    except OmegaConfBaseException as error:
        key = _dotted(name, getattr(error, "full_key", None) or "")
        why = "no such key" if isinstance(error, ConfigKeyError) else str(error).splitlines()[0]
        raise FilmstillError(f"{where}: {key}: {why} (allowed keys: {known})") from None
    except FilmstillError as error:
        raise FilmstillError(f"{where}: {_dotted(name, str(error))}") from None


def _refuse_other_types(schema: type, merged: Any, values: dict[str, Any]) -> None:
    """Raise FilmstillError for a value that OmegaConf converted, such as the text '12' to a number.

    dvc.lock and the key of the work folder hold what is written, so 12 would be another value than '12'.
    """
    for key, written in values.items():
        require(_alike(merged[key], written), str(key), written, _kind(schema, key))


def _alike(value: Any, written: Any) -> bool:
    """Whether a value that is no list or mapping kept the written one's type; an integer may stand for a number."""
    if not isinstance(written, str | bool | int | float):
        return True
    return type(value) is type(written) or (type(value), type(written)) == (float, int)


def _kind(schema: type, key: str) -> str:
    """What the field `key` holds, in words."""
    (annotation,) = (field.type for field in fields(schema) if field.name == key)
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return " or ".join(
        KINDS.get(option, "a mapping") for option in sorted(options, key=lambda option: option is not NoneType)
    )


def _dotted(*names: str) -> str:
    return ".".join(filter(None, names))
