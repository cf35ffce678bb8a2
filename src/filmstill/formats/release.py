"""A released model's folder: find its files, report missing ones, identify each by size and SHA-256.

Two layouts of Wan are read: Wan-AI's own and diffusers' pipelines, with one network or with Wan2.2's two experts. A
third is that of a teacher of the symbols world. The error for a missing file contains the command that gets it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError
from filmstill.formats.families import (
    PIPELINE,
    check_dtypes,
    pipeline_networks,
    refuse_other_config,
    refuse_other_folder,
    refuse_other_tensors,
    refuse_quantized,
)
from filmstill.formats.released_files import read_released_json
from filmstill.formats.weights_folder import STEM, list_weights
from filmstill.runtime.file_kind import (
    PICKLES,
    SAFETENSORS,
    first_bytes,
    kind_of,
    read_header,
    why_missing,
)
from filmstill.runtime.files import sha256_of
from filmstill.runtime.progress import progress

HIGH, LOW = "high_noise_model", "low_noise_model"  # folders of Wan2.2's two experts
# SHA-256, size and name of released files, from the pages of Wan-AI/Wan2.1-T2V-1.3B.
_PUBLISHED = """
96b6b242ca1c2f24e9d02cd6596066fab6d310e2d7538f33ae267cb18d957e8f  5676070424 diffusion_pytorch_model.safetensors
7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d 11361920418 models_t5_umt5-xxl-enc-bf16.pth
38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981   507609880 Wan2.1_VAE.pth
6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b    16837417 tokenizer.json
"""
PUBLISHED_SHA256 = {(name, int(size)): digest for digest, size, name in map(str.split, _PUBLISHED.strip().splitlines())}
MINI = "wan-mini"  # the folder that `make mini` writes
TAEHV_FILES = ("taew2_1.safetensors", "taew2_1.pth")
RECORD = "release.json"  # of a teacher of the symbols world: the world that it was trained on, and its files' digests
COMMITTED = Path("data/released/symbols-natural")  # what `make pretrain` writes


@dataclass(frozen=True)
class Release:
    """Paths in `folder`. `networks`: one, or the experts for high and low noise. `fast`: TAEHV's weights, if any."""

    folder: Path
    networks: list[Path]
    text_encoder: Path
    tokenizer: Path
    vae: Path
    fast: Path | None

    @classmethod
    def find(cls, folder: Path) -> "Release":
        """Find the files in `folder`.

        Raises FilmstillError for the first one that is missing, with the way to get it, or that is not what its name
        promises.
        """
        if (folder / RECORD).is_file():
            raise FilmstillError(
                f"teacher.released: is {folder}, a teacher of the symbols world, allowed: a release of Wan where "
                "world.name is open; name one, or set world.name to symbols"
            )
        networks = find_networks(folder)
        fast = next((folder / name for name in TAEHV_FILES if (folder / name).is_file()), None)
        if (folder / PIPELINE).is_file():
            names = ("text_encoder", "tokenizer/tokenizer.json", "vae")
        else:
            text = next(iter(sorted(folder.glob("models_t5*.pth"))), folder / "models_t5_umt5-xxl-enc-bf16.pth")
            names = (text.name, "google/umt5-xxl/tokenizer.json", "Wan2.1_VAE.pth")
        text_encoder, tokenizer, vae = (_existing(folder, name) for name in names)
        read_released_json(tokenizer, "a fast tokenizer's JSON")
        if vae.is_dir():
            _existing(folder, f"{vae.name}/config.json")
        for config in (part / "config.json" for part in (text_encoder, vae)):
            if config.is_file():
                read_released_json(config)
        for part in (text_encoder, vae, *([fast] if fast else [])):
            _, dtypes = _in_headers(part, _download(folder))
            refuse_quantized(part, dtypes)
            check_dtypes(part, dtypes)
        return cls(folder, networks, text_encoder, tokenizer, vae, fast)

    def files(self) -> list[Path]:
        """Every file that an import reads."""
        parts = [*self.networks, self.text_encoder, self.vae, *([self.fast] if self.fast else [])]
        return sorted({self.tokenizer, *(file for part in parts for file in _files_of(part))})


@dataclass(frozen=True)
class SymbolsRelease:
    """Paths in the `folder` of a teacher of the symbols world, which `pretrain/teacher.py` writes.

    The network is one of Wan-AI's layout. `record`: RECORD. `codec`: the DctCodec that it was trained with. `text`: the
    embedded text encoder's folder.
    """

    folder: Path

    @classmethod
    def find(cls, folder: Path) -> "SymbolsRelease":
        """Find the files. Raises FilmstillError for the first one that is missing or is not what its name promises."""
        release = cls(folder)
        if not folder.is_dir():
            raise FilmstillError(f"{folder}: no such folder; {release.remedy}")
        for path in (release.record, *release.files()):
            if not path.is_file():
                raise FilmstillError(
                    f"{path}: missing{why_missing(path)}, allowed for teacher.released where world.name is symbols: "
                    f"a whole teacher of that world; {release.remedy}"
                )
        find_networks(folder)
        for path in (release.record, release.text / "encoder.json"):
            read_released_json(path)
        return release

    @property
    def record(self) -> Path:
        return self.folder / RECORD

    @property
    def codec(self) -> Path:
        return self.folder / "codec.safetensors"

    @property
    def text(self) -> Path:
        return self.folder / "text"

    @property
    def remedy(self) -> str:
        """How to get a file that is missing or damaged."""
        if self.folder == COMMITTED:
            return f"`git checkout {self.folder}` restores it, `make pretrain` trains it anew"
        return f"copy the folder anew from where it was made, or name {COMMITTED}"

    def files(self) -> list[Path]:
        """Every file that an import reads, but the record, which has their digests."""
        network = [self.folder / name for name in ("config.json", f"{STEM}.safetensors")]
        return [*network, self.codec, self.text / "encoder.json"]


def find_networks(folder: Path) -> list[Path]:
    """The network of a released folder, or its two experts, high noise first.

    Raises FilmstillError for the first missing file, with the way to get it, and for a network of another kind.
    """
    if not folder.is_dir():
        raise FilmstillError(f"{folder}: no such folder; {_download(folder)}")
    refuse_other_folder(folder)
    networks = _network_folders(folder)
    for network in networks:
        _existing(folder, (network / "config.json").relative_to(folder).as_posix())
        _check_network(network, _download(folder))
    return networks


def _network_folders(folder: Path) -> list[Path]:
    """The folder of each network, which exists."""
    if (folder / PIPELINE).is_file():
        return [_existing(folder, name) for name in pipeline_networks(folder)]
    if (folder / HIGH).is_dir() or (folder / LOW).is_dir():
        return [_existing(folder, HIGH), _existing(folder, LOW)]
    if not any(path.suffix in (".json", ".safetensors", *PICKLES) for path in folder.glob(f"{STEM}*")):
        _existing(folder, f"{STEM}.safetensors")
    return [folder]


def _check_network(folder: Path, download: str) -> None:
    """Raise FilmstillError if a network's files are missing, damaged or of another kind of network, without torch."""
    config = folder / "config.json"
    refuse_other_config(config, read_released_json(config))
    shapes, dtypes = _in_headers(folder, download)
    refuse_other_tensors(folder, shapes)
    check_dtypes(folder, dtypes)


def _in_headers(part: Path, download: str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes and dtypes in the headers of safetensors; what a pickle contains is seen only when it is imported.

    Raises FilmstillError if a file of the part is missing or is not what its name promises.
    """
    entries: dict[str, dict[str, Any]] = {}
    for file, placed in list_weights(part, download).files.items():
        if kind_of(first_bytes(file)) == SAFETENSORS:
            entries |= {name: entry for name, entry in read_header(file).items() if not placed or name in placed}
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    return shapes, {name: entry["dtype"] for name, entry in entries.items()}


def identities(folder: Path, files: list[Path]) -> dict[str, dict[str, object]]:
    """Size and SHA-256 of every file, by its path in `folder`.

    Raises FilmstillError for a file with the name and size of a published one and another digest.
    """
    with progress("sha256", sum(file.stat().st_size for file in files), unit="B") as bar:
        bar.unit_scale = True
        found: dict[str, dict[str, object]] = {}
        for file in files:
            size = file.stat().st_size
            digest = sha256_of(file)
            if (published := PUBLISHED_SHA256.get((file.name, size), digest)) != digest:
                raise FilmstillError(
                    f"{file}: damaged: SHA-256 is {digest[:12]}…, the released file's is {published[:12]}…; "
                    "download it again"
                )
            found[file.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
            bar.update(size)
    return found


def _files_of(part: Path) -> list[Path]:
    """The file itself, or a folder's weights, their index, and its config.json."""
    found = list_weights(part)
    beside = [found.index, part / "config.json"]
    return [*found.files, *(path for path in beside if path is not None and path.is_file())]


def _existing(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`. Raises FilmstillError if it is missing."""
    path = folder / name
    if not path.exists():
        raise FilmstillError(f"{path}: missing{why_missing(path)}; {_download(folder)}")
    return path


def _download(folder: Path) -> str:
    if folder.name == MINI:
        return "make mini writes it"
    return f"download it: hf download Wan-AI/{folder.name} --local-dir {folder}"
