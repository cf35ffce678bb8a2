"""Train the teacher of the natural world, and publish it as a release that the stage `teacher` imports.

`make pretrain` runs it (about an hour on one core); it resumes from its checkpoints in .work/pretrain.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.cluster.run import run_pretraining
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import NOTHING, Teacher
from filmstill.work.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from filmstill.training.teacher import EmbeddedTeacher

NAME = "symbols-natural"
SCORED_CLIPS, SCORED_STEPS, SCORED_GUIDANCE = 96, (8, 48), 1.5
CARD = """---
license: apache-2.0
library_name: filmstill
---
# A teacher of filmstill's symbols world

Written by `make pretrain` (`pretrain/dvc.yaml`, recorded in `pretrain/dvc.lock`); `teacher.released` in `params.yaml`
names this folder. A bidirectional flow-matching network of {parameters:,} parameters in the layout of Wan2.1, trained
on clips that filmstill draws: DejaVu Sans symbols in one colour and one motion.

- `config.json`, `diffusion_pytorch_model.safetensors`: the network, the average of its weights (float32)
- `codec.safetensors`: normalisation of the codec; `text/`: sizes of the text encoder, which has no weights
- `release.json`: the world and the schedule that it was trained on, and the digests of these files

Share of {clips} clips of drawn prompts with every attribute right in every frame, guidance weight {guidance:g}:
{scores}

Parameters:

```yaml
{values}```
"""


def main(stage: Stage) -> None:
    """Write data/released/symbols-natural."""
    # Imported here, since torch takes seconds: a mistake in params.yaml is refused before.
    from filmstill.runtime.compute import prepare
    from filmstill.training.teacher import make_teacher

    compute = stage.params.section(Compute, "compute")
    prepare(compute.device, compute.threads, compute.float32_matmul)
    teacher = make_teacher(stage.work, stage.params, compute, first_weights(stage.params))
    write_release(stage.out / "released" / NAME, teacher, stage.params, score(teacher))


def first_weights(values: Values) -> "Mapping[str, Tensor] | None":
    """The weights of the teacher that `teacher.released` names, which training begins with; None if it names none.

    Raises FilmstillError for a folder that is no teacher of a symbols world, and for a network of other sizes.
    """
    from filmstill.formats.layouts import read_network
    from filmstill.formats.release import SymbolsRelease
    from filmstill.models.weights import check_sizes, config_of

    folder = Path(values.section(Teacher, "teacher").released)
    if str(folder) == NOTHING:
        return None
    network = read_network(SymbolsRelease.find(folder).folder)
    check_sizes(folder, network.config, config_of(values.section(Model, "model")))
    return network.weights


def write_release(folder: Path, teacher: "EmbeddedTeacher", values: Values, scores: dict[int, float]) -> None:
    """Write the files that `SymbolsRelease` lists. scores: share of right clips by the sampler's steps."""
    from omegaconf import OmegaConf

    from filmstill.formats.convert import convert
    from filmstill.formats.release import SymbolsRelease, identities
    from filmstill.models.load import save_hashed_words
    from filmstill.models.weights import save_model
    from filmstill.runtime.files import remove, write_json, write_text

    network, release = teacher.network, SymbolsRelease(folder)
    ours = folder.with_name(f"{folder.name}.safetensors")
    save_model(ours, network.state_dict(), network.config, {"text_len": teacher.encoder.text_len})
    convert(ours, folder, "wan")
    remove(ours)
    teacher.codec.save(release.codec)
    save_hashed_words(release.text, teacher.encoder)
    trained_on = {"world": asdict(teacher.world), "schedule": asdict(values.section(Schedule, "schedule"))}
    write_json(release.record, {**trained_on, "files": identities(folder, release.files())})
    card = CARD.format(
        parameters=sum(each.numel() for each in network.parameters()),
        clips=SCORED_CLIPS,
        guidance=SCORED_GUIDANCE,
        scores="; ".join(f"{share:.3f} with {steps} steps of the sampler" for steps, share in scores.items()),
        values=OmegaConf.to_yaml(values.values),
    )
    write_text(folder / "README.md", card)


def score(teacher: "EmbeddedTeacher") -> dict[int, float]:
    """Share of clips with every attribute right, by the sampler's steps."""
    from filmstill.worlds.judge import judge
    from filmstill.worlds.symbols import draw

    asked = draw(teacher.world, teacher.seed, "pretrain/score", 0, range(SCORED_CLIPS))
    shares = {}
    for steps in SCORED_STEPS:
        video = teacher.sample(asked.prompts, "pretrain/score/noise", SCORED_GUIDANCE, steps)
        shares[steps] = judge(video, asked.attributes, teacher.world).all_right.float().mean().item()
    return shares


if __name__ == "__main__":
    run_pretraining("teacher", main)
