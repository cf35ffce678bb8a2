"""Keyed work folders: where a stage works, what it is named by, and how it is published.

Notable: a folder `.work/<stage>/<key>/` is named by the SHA-256 of what dvc.yaml says the stage depends on,
so a killed run resumes in the folder of its key and nothing stale is picked up under another; a dep that
another stage made is taken by its hash in dvc.lock and never read again (pairs can be 300 GB); gates are not
part of a key, since they judge the work and do not make it.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from filmstill.errors import FilmstillError
from filmstill.params.load import read_plain, read_yaml, to_plain

GATE = "gate"
IGNORED = ".cache"  # as .dvcignore says: what `hf download` notes down about a download, with its time


@dataclass(frozen=True)
class Inputs:
    """What a stage is made from: MD5 by dep, value by parameter name, as dvc.lock records them."""

    deps: dict[str, str]
    params: dict[str, Any]

    @property
    def key(self) -> str:
        """The name of the work folder: gates judge the work and do not make it, so they are left out."""
        return self.digest(with_gates=False)[:16]

    def digest(self, with_gates: bool) -> str:
        params = self.params if with_gates else {name: _without_gate(value) for name, value in self.params.items()}
        text = json.dumps({"deps": self.deps, "params": params}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def of_lock(cls, entry: dict[str, Any]) -> "Inputs":
        """The inputs that a stage's entry in dvc.lock records."""
        deps = {dep["path"]: dep["md5"] for dep in entry.get("deps", [])}
        return cls(deps, entry.get("params", {}).get("params.yaml", {}))


def repository() -> Path:
    """The repository's root, which must be the current folder. Raises FilmstillError."""
    root = Path.cwd()
    if not (root / "dvc.yaml").is_file():
        raise FilmstillError(f"{root}: holds no dvc.yaml; run this from the repository's root")
    return root


def stages() -> dict[str, Any]:
    """The stages of dvc.yaml by name, `${…}` filled in from params.yaml as DVC does."""
    merged = OmegaConf.merge(read_yaml("params.yaml"), _graph())
    return to_plain(merged, "params.yaml and dvc.yaml")["stages"]


def outputs(stage: dict[str, Any], kinds: Sequence[str] = ("outs", "metrics", "plots")) -> list[Path]:
    """The paths of these kinds that a stage publishes; by default all."""
    listed = [item for kind in kinds for item in stage.get(kind, [])]
    return [Path(next(iter(item)) if isinstance(item, dict) else item) for item in listed]


def inputs(name: str) -> Inputs:
    """The inputs of a stage as the files and params.yaml stand now."""
    every = stages()
    recorded = _recorded_outs(Path("dvc.lock"))
    made_by_stages = {str(path) for stage in every.values() for path in outputs(stage)}
    deps = {}
    for path in every[name].get("deps", []):
        if path not in made_by_stages:
            deps[path] = _md5(Path(path))
        elif path in recorded:
            deps[path] = recorded[path]
        else:
            raise FilmstillError(f"{path}: not in dvc.lock; run `dvc repro`, which makes it first")
    values = read_plain("params.yaml")
    missing = [key for key in every[name].get("params", []) if key not in values]
    if missing:
        raise FilmstillError(
            f"params.yaml: '{missing[0]}' is missing; `python -m filmstill profile embedded` writes it"
        )
    return Inputs(deps, {key: values[key] for key in every[name].get("params", [])})


def refuse_sources_younger(inputs: Inputs, began: float) -> None:
    """Stop when a source was edited after `began`, when the process started to import it: what runs may be another.

    A time still to come says nothing of when it was edited, only that some clock is wrong.
    """
    for dep in inputs.deps:
        if dep.endswith(".py") and began < Path(dep).stat().st_mtime <= time.time():
            raise FilmstillError(f"{dep}: changed while the stage was starting; run `dvc repro` again")


def _graph() -> dict[str, Any]:
    """dvc.yaml as it is written.

    With libyaml, as dvc.lock: both are ten times longer than all else that names inputs, and every shard asks.
    """
    file = Path("dvc.yaml")
    try:
        graph = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, OSError) as error:
        raise FilmstillError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(graph, dict) or "stages" not in graph:
        raise FilmstillError(f"{file}: holds no stages; restore it with `git checkout dvc.yaml`")
    return graph


def _recorded_outs(lock: Path) -> dict[str, str]:
    """Hash by path of every out in dvc.lock; {} when there is none yet."""
    if not lock.exists():
        return {}
    try:
        entries = yaml.load(lock.read_bytes(), Loader=yaml.CSafeLoader).get("stages", {}).values()
        return {out["path"]: out["md5"] for entry in entries for out in entry.get("outs", [])}
    except (yaml.YAMLError, OSError, TypeError, KeyError, AttributeError) as error:
        raise FilmstillError(
            f"{lock}: not the lock file that DVC writes ({' '.join(str(error).split())[:200]}); restore it with "
            "`git checkout dvc.lock`"
        ) from None


def _without_gate(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != GATE} if isinstance(value, dict) else value


def _md5(path: Path) -> str:
    """A source's hash as DVC computes it; a folder's is that of the list of its files."""
    try:
        if not path.is_dir():
            status = path.stat()
            return _md5_of_file(path, status.st_size, status.st_mtime_ns)
        files = {found.relative_to(path): found for found in path.rglob("*") if found.is_file()}
        named = sorted((name.as_posix(), file) for name, file in files.items() if IGNORED not in name.parts)
        listed = [{"md5": _md5(file), "relpath": name} for name, file in named]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    except OSError as error:
        raise FilmstillError(f"{path}: dvc.yaml depends on it, but it cannot be read ({error.strerror})") from None


@lru_cache(maxsize=4096)
def _md5_of_file(path: Path, _size: int, _changed: int) -> str:
    """Released weights are tens of gigabytes: once a process, as long as size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
