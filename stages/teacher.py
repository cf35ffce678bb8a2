"""Make the teacher: train one in the embedded world, or import a released one."""

from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.cluster.run import run_stage
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import NOTHING, Teacher
from filmstill.params.text import Text
from filmstill.params.world import OPEN, World
from filmstill.work.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from filmstill.models.dit import DiTConfig

# The clip of a teacher of the open world, to be checked by eye.
RELEASED_PROMPT = "A red balloon drifts over a field of sunflowers in the morning light."
RELEASED_GUIDANCE, RELEASED_STEPS = 5.0, 16


def main(stage: Stage) -> None:
    """Write data/teacher: the network, the networks of the real score, the codec and the text encoder."""
    # Imported here, since torch takes seconds: a process that only submits the job does not need it.
    from filmstill.runtime.compute import prepare

    compute = stage.params.section(Compute, "compute")
    prepare(compute.device, compute.threads, compute.float32_matmul)
    out = stage.out / "teacher"
    if stage.params.section(World, "world").name == OPEN:
        import_released(out, stage.params, compute)
    elif stage.params.section(Teacher, "teacher").released != NOTHING:
        import_embedded(out, stage.params, compute)
    else:
        train_embedded(stage, compute)


def train_embedded(stage: Stage, compute: Compute) -> None:
    """Train the embedded world's teacher, and write it with its codec and text encoder."""
    from filmstill.training.curves import publish_curves
    from filmstill.training.teacher import make_teacher

    out = stage.out / "teacher"
    make_teacher(stage.work, stage.params, compute).write(out, {})
    publish_curves(stage.work, out)


def import_embedded(out: Path, params: Values, compute: Compute) -> None:
    """Import a released teacher of the embedded world, with its codec, and write a sheet of its clips."""
    from filmstill.diffusion.schedule import FlowSchedule
    from filmstill.formats.symbols_release import read_symbols
    from filmstill.models.load import frozen
    from filmstill.runtime.files import require_writable
    from filmstill.training.teacher import EmbeddedTeacher

    section = params.section
    world, schedule = section(World, "world"), section(Schedule, "schedule")
    require_writable(out / "teacher.safetensors")
    found = read_symbols(section(Teacher, "teacher"), section(Model, "model"), schedule, world)
    teacher = EmbeddedTeacher(
        found.network, found.codec, found.encoder, world, FlowSchedule(schedule.shift), params.seed
    )
    teacher.write(out, {"released": found.identities})
    (out / "curves").mkdir(exist_ok=True)  # dvc.yaml lists a training's curves; an import has none
    frozen(teacher.network, compute)
    teacher.save_sheet(out / "sheets" / "imported.png")


def import_released(out: Path, params: Values, compute: Compute) -> None:
    """Import the releases that params.yaml names, and write one sampled clip to be checked by eye."""
    from filmstill.formats.import_release import import_release
    from filmstill.runtime.image import save_sheet

    section = params.section
    config = import_release(section(Teacher, "teacher"), section(Model, "model"), section(Schedule, "schedule"), out)
    (out / "curves").mkdir(exist_ok=True)  # dvc.yaml lists a training's curves; an import has none
    save_sheet(sample_released(out, config, params, compute), out / "sheets" / "imported.png")


def sample_released(out: Path, config: "DiTConfig", params: Values, compute: Compute) -> "Tensor":
    """Sample one clip [1, F, 3, H, W] in [0, 1] with the networks that were just written to `out`."""
    import torch

    from filmstill.diffusion.sample import guided, sample
    from filmstill.diffusion.schedule import FlowSchedule
    from filmstill.models.attention import BlockCausal
    from filmstill.models.load import frozen, load_codec, load_encoder
    from filmstill.models.weights import load_model
    from filmstill.runtime import randomness

    encoder = load_encoder(Text(placement="offload"), compute, out / "text")
    encoder.prepare([RELEASED_PROMPT, ""])
    model = frozen(load_model(out / "teacher.safetensors")[0], compute)
    text, no_text = (encoder.encode([prompt]).to(model.device) for prompt in (RELEASED_PROMPT, ""))
    shape = params.section(World, "world").latent_shape(config.in_channels)
    noise = randomness.normal(shape, params.seed, "teacher/sheet/noise", 0, [0])
    with torch.no_grad():
        # Compile the student's kernels (FlexAttention) now: if this machine cannot, fail before days of ODE pairs.
        model(noise.to(model.device), torch.tensor([500.0]), model.read_text(text), attention=BlockCausal(1))
        velocity = guided(model, text, no_text, RELEASED_GUIDANCE)
        schedule = FlowSchedule(params.section(Schedule, "schedule").shift)
        latents = sample(velocity, noise.to(model.device), schedule, RELEASED_STEPS, keep=[])[:, -1]
        return load_codec(compute, out / "codec.safetensors").decode(latents).cpu()


if __name__ == "__main__":
    run_stage("teacher", main, as_job=True)
