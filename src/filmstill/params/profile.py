"""Profiles: schema ← overlay ← overrides, written whole to params.yaml. An overlay may name another as its `base`."""

from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from filmstill.errors import FilmstillError
from filmstill.params.load import checked, read_plain, read_yaml, to_plain
from filmstill.params.schema import Params
from filmstill.runtime.files import write_text

FOLDER = Path("params")
EMBEDDED = "embedded"  # the schema's own defaults
HEADER = "# Written by `python -m filmstill profile {name}`; edit values freely, `dvc repro` picks them up.\n"


def names() -> list[str]:
    """The profiles there are: the embedded world and every overlay in params/."""
    return [EMBEDDED, *sorted(path.stem for path in FOLDER.glob("*.yaml"))]


def compose(name: str, overrides: list[str]) -> Params:
    """The checked parameters of a profile with `key=value` overrides."""
    overlay = _overlay(name, "profile", ())
    for override in overrides:
        if "=" not in override:
            raise FilmstillError(f"override '{override}': must be key=value, for instance distill.lr=2e-6")
    try:
        dotted = OmegaConf.from_dotlist(overrides)
    except (OmegaConfBaseException, YAMLError) as error:
        raise FilmstillError(f"overrides {' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    where = f"profile {name}"
    return checked(Params, to_plain(OmegaConf.merge(overlay, dotted), where), where)


def _overlay(name: str, key: str, over: tuple[str, ...]) -> DictConfig:
    """What a profile says over the schema's defaults, its base's say included.

    key: where its name was given; over: the profiles it is the base of.
    """
    if name not in names() or name in over:
        allowed = ", ".join(known for known in names() if known not in over)
        raise FilmstillError(f"{key} '{name}': {'its own base' if name in over else 'unknown'}, there are: {allowed}")
    if name == EMBEDDED:
        return DictConfig({})
    path = FOLDER / f"{name}.yaml"
    overlay = read_yaml(path)
    try:
        base = overlay.pop("base", None)
    except OmegaConfBaseException as error:
        raise FilmstillError(f"{path}: base: {str(error).splitlines()[0]}") from None
    merged = OmegaConf.merge(_overlay(str(base), f"{path}: base", (*over, name)) if base else {}, overlay)
    assert isinstance(merged, DictConfig)  # of two mappings
    return merged


def check(path: Path = Path("params.yaml")) -> Params:
    """Hold the whole of params.yaml against the schema; a stage by itself only sees its own sections."""
    values = read_plain(path)
    if absent := [field.name for field in fields(Params) if field.name not in values]:
        raise FilmstillError(
            f"{path}: '{absent[0]}' is missing; `python -m filmstill profile embedded` writes every value"
        )
    return checked(Params, values, str(path))


def write(name: str, overrides: list[str], path: Path = Path("params.yaml")) -> Params:
    """Write the whole of a profile's parameters to params.yaml; returns them."""
    params = compose(name, overrides)
    write_text(path, HEADER.format(name=" ".join([name, *overrides])) + OmegaConf.to_yaml(OmegaConf.structured(params)))
    return params
