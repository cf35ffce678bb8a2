"""A pipeline's graph (dvc.yaml, dvc.lock) and the key of each stage's work folder.

The repository has two pipelines, each with a dvc.yaml, a dvc.lock and a params.yaml in its folder: its root, and
`pretrain/`, which trains a teacher once. All paths in both start at the root.

The key in `.work/<stage>/<key>/` is a SHA-256 over the stage's dependencies and parameters in dvc.yaml: a killed run
resumes in the folder of its key, and a changed input gives another folder. The hash of a dependency that another stage
makes is read from dvc.lock, because the file itself may be large (ODE pairs take up to 300 GB). Gates are not part of
the key: they decide whether a result is accepted and do not change it.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from filmstill.errors import FilmstillError
from filmstill.params.load import Values, to_plain
from filmstill.runtime.files import read_json, remove, write_json

INPUTS = "inputs.json"  # of a work folder
GATE = "gate"
ROOT, PRETRAIN = Path(), Path("pretrain")  # folders of the two pipelines, in the repository
IGNORED = ".cache"  # also in .dvcignore: metadata that `hf download` writes about a download, with its time


@dataclass(frozen=True)
class Inputs:
    """The inputs of a stage as dvc.lock records them: MD5 by dependency, value by parameter name.

    written: size and time of the last write of every file, by dependency that no stage makes; {} of recorded inputs.
    """

    deps: dict[str, str]
    params: dict[str, Any]
    written: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Name of the work folder: 16 hex digits of the digest without gates."""
        return self.digest(with_gates=False)[:16]

    def digest(self, with_gates: bool) -> str:
        """SHA-256 of the dependencies and parameters, with or without the gates among the parameters."""
        params = self.params if with_gates else {name: _without_gate(value) for name, value in self.params.items()}
        text = json.dumps({"deps": self.deps, "params": params}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def values(self) -> Values:
        """The parameters, to compute with."""
        return Values(self.params)

    def write(self, work: Path) -> None:
        """Write them into their work folder, for the processes of its shards."""
        if (work / INPUTS).is_dir():
            remove(work / INPUTS)
        write_json(work / INPUTS, {"deps": self.deps, "params": self.params})

    @classmethod
    def read(cls, work: Path) -> "Inputs":
        """The inputs that `write` wrote. Raises FilmstillError where they are damaged or not those of the folder."""
        found = read_json(work / INPUTS)
        deps, params = (found.get(name) for name in ("deps", "params"))
        inputs = cls(deps, params) if isinstance(deps, dict) and isinstance(params, dict) else cls({}, {})
        if inputs.key != work.name:
            raise FilmstillError(f"{work / INPUTS}: damaged: its key is not {work.name}; run `dvc repro` again")
        return inputs

    @classmethod
    def of_lock(cls, entry: dict[str, Any]) -> "Inputs":
        """The inputs recorded in one stage's entry of dvc.lock."""
        deps = {dep["path"]: dep["md5"] for dep in entry.get("deps", [])}
        params = {name: value for file in entry.get("params", {}).values() for name, value in file.items()}
        return cls(deps, params)


Lock = dict[str, tuple[Inputs, dict[str, str]]]  # a dvc.lock: by stage, its inputs, and MD5 by path of its outputs


def repository() -> Path:
    """The repository's root. Raises FilmstillError where the current folder is not the root."""
    root = Path.cwd()
    if not (root / "dvc.yaml").is_file():
        raise FilmstillError(f"{root}: contains no dvc.yaml; run this from the repository's root")
    return root


def read_params(pipeline: Path) -> Values:
    """The values of a pipeline's params.yaml."""
    return Values.read(pipeline / "params.yaml")


def stages(params: Values, pipeline: Path = ROOT) -> dict[str, Any]:
    """The stages of a pipeline's dvc.yaml by name, with `${…}` replaced by values of params.yaml as DVC does."""
    merged = OmegaConf.merge(params.values, _graph(pipeline))
    return to_plain(merged, f"{params.where} and dvc.yaml")["stages"]


def outputs(stage: dict[str, Any], kinds: Sequence[str] = ("outs", "metrics", "plots")) -> list[Path]:
    """Paths that a stage publishes, of the given kinds."""
    listed = [item for kind in kinds for item in stage.get(kind, [])]
    return [Path(next(iter(item)) if isinstance(item, dict) else item) for item in listed]


def param_names(stage: dict[str, Any]) -> list[str]:
    """Names of the parameters that a stage depends on: of params.yaml, or listed under the path of another file."""
    listed = [[item] if isinstance(item, str) else next(iter(item.values())) for item in stage.get("params", [])]
    return [name for names in listed for name in names]


def work_name(stage: str, pipeline: Path) -> str:
    """Name of the folder in `.work` with a stage's work folders: the stage's, or its pipeline's in `pretrain/`."""
    return pipeline.name or stage


def inputs(name: str, params: Values, pipeline: Path = ROOT) -> Inputs:
    """The inputs of a pipeline's stage, from the current files, dvc.lock and `params`, the values of its params.yaml.

    Raises FilmstillError for a dependency that does not exist or is not in dvc.lock, or a parameter that is missing.
    """
    every = stages(params, pipeline)
    recorded = {path: md5 for _, outs in _recorded(pipeline).values() for path, md5 in outs.items()}
    made_by_stages = {str(path) for stage in every.values() for path in outputs(stage)}
    deps, written = {}, {}
    for path in every[name].get("deps", []):
        if path not in made_by_stages:
            written[path] = _written(Path(path))
            deps[path] = md5_of(Path(path))
        elif path in recorded:
            deps[path] = recorded[path]
        else:
            raise FilmstillError(f"{path}: not in dvc.lock; run `dvc repro`, which makes it first")
    return Inputs(deps, {key: params[key] for key in param_names(every[name])}, written)


def is_current(name: str, output: Path, params: Values) -> bool:
    """Whether an output of the stage is the one that dvc.lock records, of a run with the current inputs."""
    made_from, outs = _recorded(ROOT).get(name, (None, {}))
    return made_from == inputs(name, params) and outs.get(str(output)) == md5_of(output)


def refuse_edited_sources(inputs: Inputs, import_time: float) -> None:
    """Raise FilmstillError where a source was edited after `import_time`: the imported code may be another version.

    import_time: seconds since the epoch at which this process began to import filmstill. A modification time in the
    future is ignored: it comes from a wrong clock.
    """
    for dep in inputs.deps:
        if dep.endswith(".py") and import_time < Path(dep).stat().st_mtime <= time.time():
            raise FilmstillError(f"{dep}: changed since the stage has started; run `dvc repro` again")


def refuse_rewritten(before: Inputs, now: Inputs, work: Path) -> None:
    """Raise FilmstillError where a file of the user's was written between both, although its hash is the same now.

    It may have been edited and put back, and read in between: the hash that dvc.lock records would be another's. What
    stages make is left to DVC, which locks it, and to the stages, which write the same bytes again.
    """
    for dep, written in before.written.items():
        if now.written[dep] != written:
            raise FilmstillError(
                f"{dep}: was written while the stage ran; not published. Run `dvc repro` again, and first remove "
                f"{work} if the file was another in between"
            )


def _graph(pipeline: Path) -> dict[str, Any]:
    """A pipeline's dvc.yaml, parsed.

    Parsed by libyaml, as dvc.lock is: both are ten times longer than the other files read here, and every shard reads
    them.
    """
    file = pipeline / "dvc.yaml"
    try:
        graph = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, OSError) as error:
        raise FilmstillError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(graph, dict) or "stages" not in graph:
        raise FilmstillError(f"{file}: contains no stages; restore it with `git checkout {file}`")
    return graph


def _recorded(pipeline: Path) -> Lock:
    """A pipeline's dvc.lock; {} where it does not exist yet."""
    lock = pipeline / "dvc.lock"
    if not lock.exists():
        return {}
    try:
        text = lock.read_bytes()
    except OSError as error:
        raise FilmstillError(f"{lock}: cannot be read ({error.strerror}); make it readable and run again") from None
    return read_lock(text, str(lock), f"restore it with `git checkout {lock}`")


def read_lock(text: bytes, where: str, then: str) -> Lock:
    """Every entry of a dvc.lock. Raises FilmstillError for other text: `where`, what is wrong, `then`.

    Empty text is refused too: DVC writes the file in place, and may be killed in between.
    """
    try:
        entries = yaml.load(text, Loader=yaml.CSafeLoader)["stages"]
        return {
            name: (Inputs.of_lock(entry), {out["path"]: out["md5"] for out in entry.get("outs", [])})
            for name, entry in entries.items()
        }
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FilmstillError(f"{where}: not the lock file that DVC writes ({why}); {then}") from None


def _without_gate(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != GATE} if isinstance(value, dict) else value


def _written(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of a file, or of every file in a folder."""
    try:
        statuses = ((name, file.stat()) for name, file in _files(path))
        return [(name, status.st_size, status.st_mtime_ns) for name, status in statuses]
    except OSError as error:
        raise _unreadable(path, error) from None


def md5_of(path: Path) -> str:
    """MD5 of a file or folder as DVC computes it; for a folder, the MD5 of its file list."""
    try:
        if not path.is_dir():
            status = path.stat()
            return _md5_of_file(path.absolute(), status.st_size, status.st_mtime_ns)
        listed = [{"md5": md5_of(file), "relpath": name} for name, file in _files(path)]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    except OSError as error:
        raise _unreadable(path, error) from None


def _files(path: Path) -> list[tuple[str, Path]]:
    """The file itself, or every file of a folder but those that DVC ignores, by its relative name."""
    if not path.is_dir():
        return [(path.name, path)]
    files = {found.relative_to(path): found for found in path.rglob("*") if found.is_file()}
    return sorted((name.as_posix(), file) for name, file in files.items() if IGNORED not in name.parts)


def _unreadable(path: Path, error: OSError) -> FilmstillError:
    return FilmstillError(f"{path}: dvc.yaml depends on it, but it cannot be read ({error.strerror})")


@lru_cache(maxsize=4096)
def _md5_of_file(path: Path, _size: int, _changed: int) -> str:
    """Cached per process by path, size and modification time, because released weights take tens of gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
