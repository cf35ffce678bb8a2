"""Import a released teacher: check its files, convert them, write what later stages read.

The teacher's header records every file's size and SHA-256. A second release may provide the real score: a larger
network, or Wan2.2's two experts.
"""

from pathlib import Path

from filmstill.errors import FilmstillError
from filmstill.formats.families import experts_boundary
from filmstill.formats.layouts import Network, read_network
from filmstill.formats.release import Release, find_networks, identities
from filmstill.formats.umt5 import check_umt5, import_umt5
from filmstill.formats.wan_vae import check_vae, import_vae, read_taehv
from filmstill.models.dit import DiTConfig
from filmstill.models.weights import check_sizes, config_of, header_of
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import NOTHING, Teacher
from filmstill.runtime.files import require_writable, write_json
from filmstill.runtime.progress import progress
from filmstill.runtime.tensor_stream import stream_tensors

# Files of the real score: two experts, high noise first, or one network.
EXPERTS = ("high.safetensors", "low.safetensors")
SINGLE = ("all.safetensors",)


def import_release(params: Teacher, sizes: Model, schedule: Schedule, out: Path) -> DiTConfig:
    """Write weights, real score, codec and text encoder to `out`, from the folders that `params` names.

    Returns the teacher's sizes. Raises FilmstillError for missing or damaged files and for networks whose sizes differ
    from params.yaml's; headers are checked before any file is hashed, and that `out` can be written before all.
    """
    require_writable(out / "teacher.safetensors")
    release, network, scores = check_release(params, sizes)
    found = identities(release.folder, release.files())
    import_vae(release.vae, out / "codec.safetensors", sizes.in_channels, release.fast)
    import_umt5(release.text_encoder, release.tokenizer, out / "text", sizes.text_len)
    names = EXPERTS if len(scores) == 2 else SINGLE[: len(scores)]
    for name, score in zip(names, scores, strict=True):
        _write(out / "real_score" / name, score, {"released": identities(Path(params.real_score), score.files)})
    write_json(out / "real_score" / "experts.json", {"files": list(names), "boundary": params.boundary})
    _write(out / "teacher.safetensors", network, {"shift": schedule.shift, "released": found})
    return network.config


def check_release(params: Teacher, sizes: Model) -> tuple[Release, Network, list[Network]]:
    """(files, teacher, networks of the real score) of the releases that `params` names, for a student of `sizes`.

    Raises FilmstillError for all that an import refuses except a file that is damaged inside. It reads
    headers and the small decoder, no other weights, so that `check` calls it, too.
    """
    release = Release.find(Path(params.released))
    if len(release.networks) > 1:
        raise FilmstillError(
            f"teacher.released: {release.folder} holds two experts, but student and critic start from one network; "
            "give the experts as teacher.real_score"
        )
    network = read_network(release.networks[0])
    expected = config_of(sizes)
    check_sizes(release.folder, network.config, expected)
    scores = _real_scores(params, expected)
    check_vae(release.vae, sizes.in_channels)
    if release.fast:
        read_taehv(release.fast, sizes.in_channels)
    _, _, encoder = check_umt5(release.text_encoder, release.tokenizer)
    if (dim := encoder["d_model"]) != sizes.text_dim:
        raise FilmstillError(
            f"{release.text_encoder}: encodes to {dim} channels, the network takes model.text_dim {sizes.text_dim}"
        )
    return release, network, scores


def _write(path: Path, network: Network, facts: dict[str, object]) -> None:
    """Write a network as a filmstill file, tensor by tensor."""
    with progress("import", sum(tensor.nbytes for tensor in network.weights.values()), unit="B") as bar:
        bar.unit_scale = True
        stream_tensors(path, network.weights, header_of(network.config, facts), bar.update)


def _real_scores(params: Teacher, expected: DiTConfig) -> list[Network]:
    """The networks of the real score; [] if the teacher itself provides it."""
    if params.real_score == NOTHING:
        return []
    networks = [read_network(path) for path in find_networks(Path(params.real_score))]
    for network in networks:
        config = network.config
        if (config.in_channels, config.text_dim) != (expected.in_channels, expected.text_dim):
            raise FilmstillError(
                f"teacher.real_score: {params.real_score} takes {config.in_channels} latent channels and text of "
                f"{config.text_dim}, the student {expected.in_channels} and {expected.text_dim}: they must be the same"
            )
    if len({network.config for network in networks}) > 1:
        raise FilmstillError(f"teacher.real_score: {params.real_score} holds two experts of different sizes")
    boundary = experts_boundary(Path(params.real_score))
    if len(networks) == 2 and boundary not in (None, params.boundary):
        raise FilmstillError(
            f"teacher.boundary: is {params.boundary}, but {params.real_score} says that its experts meet at {boundary}"
            f"; set teacher.boundary to {boundary}"
        )
    return networks
