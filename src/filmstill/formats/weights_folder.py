"""Which files of a folder hold its weights, and which tensors of each. Without torch, since `check` lists them too.

A folder holds one set of weights: a single file, or shards with an index (`<stem>.<suffix>.index.json`), as diffusers
and transformers write them. An index is followed to the letter: the files of its weight_map, in each the tensors that
it puts there. Of several sets, the first rule that leaves one set decides, or the folder is refused:

1. sets named `diffusion_pytorch_model`, `model` or `pytorch_model` before other files;
2. sets without a variant (`.fp16`, `.bf16` in the name) before the others;
3. safetensors before pickles.

Source of the names: `_add_variant` of diffusers and transformers, and their *_INDEX_NAME constants.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.formats.families import refuse_other_folder
from filmstill.formats.released_files import read_released_json, refusal
from filmstill.runtime.file_kind import PICKLES, fault_of, why_missing

STEM = "diffusion_pytorch_model"  # name of a network's or a VAE's weights in a folder, without suffix
_STEMS = (STEM, "model", "pytorch_model")
_SHARD = re.compile(r"-(\d+)-of-(\d+)(\.[^.]+)?$")  # in a name without suffix; the last group is an old variant's
_INDEX = re.compile(r"(.+)\.(safetensors|bin|pt|pth)\.index(?:\.([^.]+))?\.json")


@dataclass(frozen=True)
class WeightFiles:
    """A set's files, each with the tensors to read from it (None: all), and its index, if it has one."""

    files: dict[Path, frozenset[str] | None]
    index: Path | None = None


@dataclass(frozen=True)
class _Set:
    """A single file or an index, with what its name shows."""

    path: Path
    stem: str
    variant: str
    suffix: str
    is_index: bool = False


def list_weights(path: Path, download: str = "") -> WeightFiles:
    """The weights in a file or folder, whose files are whole by their kind and length.

    download: how to get a missing file, for the message.
    Raises FilmstillError if a file is missing, unfinished or of another kind, and if the folder's sets are ambiguous.
    """
    if path.is_file():
        if (shard := _SHARD.search(path.stem)) and int(shard[2]) > 1:
            raise FilmstillError(f"{path}: is shard {int(shard[1])} of {int(shard[2])}; pass its folder, {path.parent}")
        found = WeightFiles({path: None})
    elif path.is_dir():
        chosen = _chosen(path)
        found = _indexed(chosen.path, download) if chosen.is_index else WeightFiles({chosen.path: None})
    else:
        raise FilmstillError(f"{path}: no such file or folder{why_missing(path)}")
    for file in found.files:
        if not file.is_file():
            raise FilmstillError(f"{file}: missing{why_missing(file)}; {download or 'download it again'}")
        if fault := fault_of(file):
            raise refusal(file, fault)
    return found


def _chosen(folder: Path) -> _Set:
    """The set of weights that a folder's names give, by the rules at the top."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() or not path.exists()]  # links may lead nowhere
    found = [parsed for path in files if (parsed := _parsed(path))]
    left = [one for one in found if one.is_index or not _is_shard(one.path)]
    rules: list[Callable[[_Set], bool]] = [
        lambda one: one.stem in _STEMS,
        lambda one: not one.variant,
        lambda one: one.suffix == "safetensors",
    ]
    for rule in rules:
        left = [one for one in left if rule(one)] or left
    if len(left) > 1:
        listed = {path for one in left if one.is_index for path in _weight_map(one.path)}
        left = [one for one in left if one.path not in listed]
    if len(left) == 1:
        return left[0]
    refuse_other_folder(folder, without_weights=True)
    if found and not left:
        variant = f".{found[0].variant}" if found[0].variant else ""
        index = folder / f"{found[0].stem}.{found[0].suffix}.index{variant}.json"
        raise FilmstillError(f"{index}: missing{why_missing(index)}; {len(found)} shards are there, download it, too")
    names = ", ".join(one.path.name for one in left) or "none"
    below = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(map(_parsed, path.iterdir())))
    advice = f"; pass one of its folders: {', '.join(below)}" if below else ""
    if left and not below:
        advice = "; remove those of another download, or pass one file"
    raise FilmstillError(f"{folder}: expected one weights file or a *.index.json, found {len(left)} ({names}){advice}")


def _parsed(path: Path) -> _Set | None:
    """What a name shows; None if it is not a weights file's or an index's."""
    is_index = _INDEX.fullmatch(path.name)
    if is_index:
        name, suffix, variant = is_index[1], is_index[2], is_index[3] or ""
    elif path.suffix in (".safetensors", *PICKLES):
        name, suffix, variant = _SHARD.sub(r"\3", path.stem), path.suffix[1:], ""
    else:
        return None
    stem, _, in_stem = name.partition(".")
    if stem in _STEMS:  # in other names a dot has no meaning, as in Wan2.1_VAE.pth
        return _Set(path, stem, variant or in_stem, suffix, bool(is_index))
    return _Set(path, name, variant, suffix, bool(is_index))


def _is_shard(path: Path) -> bool:
    """Whether a weights file's name is that of one of several shards."""
    shard = _SHARD.search(path.stem)
    return shard is not None and int(shard[2]) > 1


def _weight_map(index: Path) -> dict[Path, set[str]]:
    """The tensors that an index puts into each file. Raises FilmstillError if a file is outside the index's folder."""
    weight_map = read_released_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FilmstillError(f"{index}: lists no shards: its weight_map is {str(weight_map)[:80]}")
    names: dict[Path, set[str]] = {}
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not file or ".." in re.split(r"[/\\]", file) or Path(file).is_absolute():
            raise FilmstillError(f"{index}: weight_map: {tensor}: is {file!r}, allowed: a file in this folder")
        names.setdefault(index.parent / file, set()).add(tensor)
    return names


def _indexed(index: Path, download: str) -> WeightFiles:
    """The files and tensors of an index. Raises FilmstillError if a file is missing."""
    names = _weight_map(index)
    if absent := [path for path in sorted(names) if not path.is_file()]:
        listed = f"{index.name} lists {len(names)} shards"
        raise FilmstillError(f"{absent[0]}: missing{why_missing(absent[0])}; {download or listed}")
    return WeightFiles({path: frozenset(names[path]) for path in sorted(names)}, index)
