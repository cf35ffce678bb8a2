"""A released teacher: check its files, convert them, write what later stages read.

Notable: every file is recorded by size and SHA-256 in the teacher's header; networks of other sizes than params.yaml's
are refused before anything is written; a second release may give the real score (a larger network, or two experts).
"""

from pathlib import Path

import torch
from torch import Tensor

from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.distill.sheet import save_sheet
from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import DiTConfig
from filmstill.models.layouts import Network, read_network
from filmstill.models.load import frozen, load_codec, load_encoder
from filmstill.models.release import Release, find_networks, identities
from filmstill.models.released import read_json
from filmstill.models.umt5_files import import_umt5
from filmstill.models.wan_vae import import_vae
from filmstill.models.weights import check_sizes, config_of, header_of, load_model
from filmstill.params.load import read_seed, section
from filmstill.params.shared import Compute, Model, Schedule, Text, World
from filmstill.params.teacher import NOTHING, Teacher
from filmstill.runtime import randomness
from filmstill.runtime.files import write_json
from filmstill.runtime.progress import progress
from filmstill.runtime.tensor_stream import stream_tensors

SHOWN, STEPS, GUIDANCE = "A red balloon drifts over a field of sunflowers in the morning light.", 16, 5.0
EXPERTS = ("high.safetensors", "low.safetensors")
ALONE = ("all.safetensors",)


def import_teacher(out: Path) -> None:
    """Write everything that data/teacher holds, from the releases that params.yaml names."""
    params, sizes, shift = section(Teacher, "teacher"), section(Model, "model"), section(Schedule, "schedule").shift
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
    found = identities(release.folder, release.files())
    import_vae(release.vae, out / "codec.safetensors", sizes.in_channels, release.fast)
    import_umt5(release.text_encoder, release.tokenizer, out / "text", sizes.text_len)
    if (dim := read_json(out / "text" / "encoder.json")["config"]["d_model"]) != sizes.text_dim:
        raise FilmstillError(
            f"{release.text_encoder}: encodes to {dim} channels, the network takes model.text_dim {sizes.text_dim}"
        )
    names = EXPERTS if len(scores) == 2 else ALONE[: len(scores)]
    for name, score in zip(names, scores, strict=True):
        _write(out / "real_score" / name, score, {"released": identities(Path(params.real_score), score.files)})
    write_json(out / "real_score" / "experts.json", {"files": list(names), "boundary": params.boundary})
    _write(out / "teacher.safetensors", network, {"shift": shift, "released": found})
    (out / "curves").mkdir(exist_ok=True)  # of a training: there are none
    save_sheet(_sample(out, network.config), out / "sheets" / "imported.png")


@torch.no_grad()
def _sample(out: Path, config: DiTConfig) -> Tensor:
    """A clip [1, F, 3, H, W] of what was just written: a look at whether the import is whole."""
    compute, world, seed = section(Compute, "compute"), section(World, "world"), read_seed()
    encoder = load_encoder(Text(placement="offload"), compute, out / "text")
    encoder.prepare([SHOWN, ""])
    model = frozen(load_model(out / "teacher.safetensors")[0], compute)
    text, no_text = (encoder.encode([prompt]).to(model.device) for prompt in (SHOWN, ""))
    noise = randomness.normal(world.latent_shape(config.in_channels), seed, "teacher/sheet/noise", 0, [0])
    schedule, velocity = FlowSchedule(section(Schedule, "schedule").shift), guided(model, text, no_text, GUIDANCE)
    # The student's kernels are compiled (FlexAttention): a machine that cannot should say so before days of pairs.
    model(noise.to(model.device), torch.tensor([500.0]), model.read_text(text), plan=BlockCausal(1))
    latents = sample(velocity, noise.to(model.device), schedule, STEPS, keep=[])[:, -1]
    return load_codec(compute, out / "codec.safetensors").decode(latents).cpu()


def _write(path: Path, network: Network, facts: dict[str, object]) -> None:
    with progress("import", sum(tensor.nbytes for tensor in network.weights.values()), unit="B") as bar:
        bar.unit_scale = True
        stream_tensors(path, network.weights, header_of(network.config, facts), bar.update)


def _real_scores(params: Teacher, expected: DiTConfig) -> list[Network]:
    """The networks that give the real score; [] where the teacher itself does."""
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
    return networks
