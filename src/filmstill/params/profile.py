"""Profiles: schema ← overlay ← overrides, written to params.yaml with every key. An overlay may have a `base`."""

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import chain, count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from filmstill.errors import FilmstillError
from filmstill.params.commented import commented
from filmstill.params.load import Values, checked, read_plain, to_plain
from filmstill.params.schema import Params
from filmstill.params.yaml_text import mapping, read_text, refuse_other_readings, refuse_too_much
from filmstill.runtime.files import replacing, write_text

FOLDER = Path("params")
EMBEDDED = "embedded"  # the schema's own defaults
HEADER = "# Written by `python -m filmstill profile {command}`; edit values freely, `dvc repro` picks them up.\n"
ABSENT = object()


@dataclass(frozen=True)
class Replaced:
    """What a profile replaced that `profile` had not written: one line per value; the file that keeps it all."""

    summary: str
    values: list[str]
    copy: Path


def names() -> list[str]:
    """Every profile: the embedded world's and the overlays in params/."""
    return [EMBEDDED, *sorted(path.stem for path in FOLDER.glob("*.yaml"))]


def compose(name: str, overrides: list[str]) -> Params:
    """The checked parameters of a profile with `key=value` overrides."""
    overlay = _overlay(name, "profile", ())
    for override in overrides:
        _check_override(override)
    try:
        dotted = OmegaConf.from_dotlist(overrides)
    except (OmegaConfBaseException, YAMLError) as error:
        raise FilmstillError(f"overrides {' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    where = f"profile {name}"
    return checked(Params, to_plain(OmegaConf.merge(overlay, dotted), where), where)


def _check_override(override: str) -> None:
    """Raise FilmstillError for an override that is not key=value, or whose value DVC would read otherwise."""
    where = f"override '{override}'"
    _, equals, value = override.partition("=")
    if not equals:
        raise FilmstillError(f"{where}: must be key=value, for instance distill.lr=2e-6")
    try:
        refuse_too_much(value, where)
        ours = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise FilmstillError(f"{where}: {str(error).splitlines()[0]}") from None
    assert isinstance(ours, dict)
    refuse_other_readings(value, ours["value"], where)


def _overlay(name: str, key: str, over: tuple[str, ...]) -> DictConfig:
    """What a profile changes of the schema's defaults, its base's changes included.

    key: where its name was given; over: the profiles that have it as their base.
    """
    if name not in names() or name in over:
        allowed = ", ".join(known for known in names() if known not in over)
        raise FilmstillError(f"{key}: is '{name}'{', its own base' if name in over else ''}, allowed: {allowed}")
    if name == EMBEDDED:
        return DictConfig({})
    path = FOLDER / f"{name}.yaml"
    text = read_text(path)
    overlay = mapping(text, str(path))
    refuse_other_readings(text, OmegaConf.to_container(overlay), str(path))
    try:
        base = overlay.pop("base", None)
    except OmegaConfBaseException as error:
        raise FilmstillError(f"{path}: base: {str(error).splitlines()[0]}") from None
    merged = OmegaConf.merge(_overlay(str(base), f"{path}: base", (*over, name)) if base else {}, overlay)
    assert isinstance(merged, DictConfig)  # of two mappings
    return merged


def check(path: Path = Path("params.yaml")) -> Params:
    """Check all of params.yaml against the schema; a stage checks only its own sections."""
    values = Values.read(path).values
    if absent := [field.name for field in fields(Params) if field.name not in values]:
        raise FilmstillError(
            f"{path}: '{absent[0]}' is missing; `python -m filmstill profile embedded` writes every value"
        )
    return checked(Params, values, str(path))


def write(name: str, overrides: list[str], path: Path = Path("params.yaml")) -> tuple[Params, Replaced | None]:
    """Write all of a profile's parameters to params.yaml; returns them, and what of the user's own was replaced.

    A params.yaml with values that its profile does not set is first copied to params.yaml.bak (or .bak.1, .bak.2, ...
    if that exists).
    """
    params = compose(name, overrides)
    replaced = _replaced(path, params)
    if replaced is not None:
        with replacing(replaced.copy) as temporary:
            shutil.copyfile(path, temporary)
    command = shlex.join([name, *overrides]).replace("\n", " ")  # one line of comment
    write_text(path, HEADER.format(command=command) + commented(params))
    return params, replaced


def _replaced(path: Path, params: Params) -> Replaced | None:
    """What writing `params` to `path` replaces that `profile` had not written itself; None: nothing."""
    if not path.is_file():
        return None
    try:
        found = _flat(read_plain(path))
    except FilmstillError as unreadable:
        return Replaced(f"{unreadable}", [], _free(path))
    written, planned = _as_written(path), _flat(asdict(params))
    values = [
        f"{key}: {value!r}, now {planned[key]!r}" if key in planned else f"{key}: {value!r}, now no key"
        for key, value in found.items()
        if value not in (written.get(key, ABSENT), planned.get(key, ABSENT))
    ]
    own = f"{path}: had {len(values)} value{'s' * (len(values) > 1)} that its profile does not set"
    return Replaced(own, values, _free(path)) if values else None


def _as_written(path: Path) -> dict[str, Any]:
    """The values that `profile` wrote, by the first line of the file; {} where another program wrote it."""
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    command = re.search(r"filmstill profile (.+)`; edit", first)
    if command is None:
        return {}
    try:
        name, *overrides = shlex.split(command[1])
        return _flat(asdict(compose(name, overrides)))
    except (FilmstillError, ValueError):  # a profile, a key or a quote that does not exist any more
        return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _free(path: Path) -> Path:
    """params.yaml.bak, or the next of its kind that does not exist."""
    names = chain([f"{path.name}.bak"], (f"{path.name}.bak.{number}" for number in count(1)))
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())
