"""Released teachers of the symbols world: checked, and read as the teacher stage imports them.

`pretrain/teacher.py` writes them: a network as Wan-AI's are released, its codec, its text encoder's sizes, and a record
of the world and the schedule that it was trained on, and of every file's size and SHA-256.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filmstill.errors import FilmstillError, require
from filmstill.formats.layouts import Network, read_network
from filmstill.formats.release import SymbolsRelease, identities
from filmstill.formats.released_files import read_released_json
from filmstill.models.codec import DctCodec
from filmstill.models.dit import VideoDiT
from filmstill.models.load import load_encoder
from filmstill.models.text import HashedWords
from filmstill.models.weights import check_sizes, config_of
from filmstill.params.compute import Compute
from filmstill.params.load import checked
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import Teacher
from filmstill.params.text import Text
from filmstill.params.world import World


@dataclass(frozen=True)
class Symbols:
    """A released teacher of the symbols world. identities: size and SHA-256 of its files, by path in its folder."""

    network: VideoDiT
    codec: DctCodec
    encoder: HashedWords
    identities: dict[str, dict[str, object]]


def read_symbols(params: Teacher, sizes: Model, schedule: Schedule, world: World) -> Symbols:
    """Read the teacher that `params` names. Raises FilmstillError for all that `check_symbols` refuses."""
    release, network, codec, encoder = check_symbols(params, sizes, schedule, world)
    model = VideoDiT(network.config)
    model.load_state_dict(dict(network.weights))
    return Symbols(model, codec, encoder, identities(release.folder, [*release.files(), release.record]))


def check_symbols(
    params: Teacher, sizes: Model, schedule: Schedule, world: World
) -> tuple[SymbolsRelease, Network, DctCodec, HashedWords]:
    """(files, network, codec, text encoder) of the teacher that `params` names, whose files are whole.

    Raises FilmstillError for missing or damaged files, for another world or schedule than params.yaml's, and for a
    network of other sizes.
    """
    release = SymbolsRelease.find(Path(params.released))
    record = read_released_json(release.record)
    _check_trained_on(release, "world", checked(World, record.get("world"), str(release.record), "world"), world)
    trained = checked(Schedule, record.get("schedule"), str(release.record), "schedule")
    _check_trained_on(release, "schedule", trained, schedule)
    network = read_network(release.folder)
    check_sizes(release.folder, network.config, config_of(sizes))
    _check_digests(release, record.get("files"))
    codec, encoder = DctCodec.load(release.codec), load_encoder(Text(), Compute(), release.text)
    for name in ("text_len", "text_dim"):
        found, expected = getattr(encoder, name, None), getattr(sizes, name)
        require(found == expected, f"model.{name}", expected, f"{found}, that of {release.text}; set it to match")
    assert isinstance(encoder, HashedWords)  # the digests are right
    return release, network, codec, encoder


def _check_trained_on(release: SymbolsRelease, section: str, trained: Any, chosen: Any) -> None:
    """Raise FilmstillError for the first key of a section of params.yaml with another value than in training."""
    for name, value in asdict(trained).items():
        found, remedy = getattr(chosen, name), "set it so, or train another with `make pretrain`"
        allowed = f"{value}, which {release.folder} was trained with; {remedy}"
        require(found == value, f"{section}.{name}", found, allowed)


def _check_digests(release: SymbolsRelease, recorded: object) -> None:
    """Raise FilmstillError for the first file that is not the recorded one."""
    for name, found in identities(release.folder, release.files()).items():
        expected = recorded.get(name) if isinstance(recorded, dict) else None
        if expected != found:
            raise FilmstillError(
                f"{release.folder / name}: damaged: its size and SHA-256 are not those in {release.record.name}; "
                f"{release.remedy}"
            )
