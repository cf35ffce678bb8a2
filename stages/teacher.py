"""Make the teacher: train one in an embedded world, or import a released one in the open world."""

from pathlib import Path
from typing import TYPE_CHECKING

from filmstill.cluster.run import run_stage
from filmstill.params.compute import Compute
from filmstill.params.load import Values
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import Teacher
from filmstill.params.text import Text
from filmstill.params.world import OPEN, World
from filmstill.work.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from filmstill.models.dit import DiTConfig

SHEET_STEPS = 16  # Euler steps of every teacher's sheet
SHEET_CLIPS, SHEET_GUIDANCE = 6, 3.0  # of an embedded teacher's
RELEASED_PROMPT, RELEASED_GUIDANCE = "A red balloon drifts over a field of sunflowers in the morning light.", 5.0


def main(stage: Stage) -> None:
    """Write data/teacher: the network, the networks of the real score, the codec and the text encoder."""
    # Imported here, since torch takes seconds: a process that only submits the job does not need it.
    from filmstill.runtime.compute import prepare

    compute = stage.params.section(Compute, "compute")
    prepare(compute.device, compute.threads, compute.float32_matmul)
    if stage.params.section(World, "world").name == OPEN:
        import_released(stage.out / "teacher", stage.params, compute)
    else:
        train_embedded(stage, compute)


def train_embedded(stage: Stage, compute: Compute) -> None:
    """Fit the world's codec, train the network, and write both with the text encoder."""
    from filmstill.diffusion.sample import guided, sample
    from filmstill.diffusion.schedule import FlowSchedule
    from filmstill.models.load import DTYPES, save_hashed_words
    from filmstill.models.text import HashedWords
    from filmstill.models.weights import config_of, save_model
    from filmstill.runtime import randomness
    from filmstill.runtime.files import write_json
    from filmstill.runtime.image import save_sheet
    from filmstill.training.curves import publish_curves
    from filmstill.training.teacher import fit_codec, new_model, train_teacher
    from filmstill.worlds import symbols

    section, seed = stage.params.section, stage.params.seed
    params, world, sizes = section(Teacher, "teacher"), section(World, "world"), section(Model, "model")
    schedule = FlowSchedule(section(Schedule, "schedule").shift)
    codec = fit_codec(world, seed)
    encoder = HashedWords(sizes.text_len, sizes.text_dim)
    shown = symbols.draw(world, seed, "teacher/sheet", 0, range(SHEET_CLIPS))
    shape, config = world.latent_shape(sizes.in_channels), config_of(sizes)
    model = new_model(config, seed)
    model.precision, model.activation_checkpointing = DTYPES[compute.precision], compute.activation_checkpointing

    def draw_sheet(path: Path) -> None:
        velocity = guided(model, encoder.encode(shown.prompts), encoder.encode([""]), SHEET_GUIDANCE)
        noise = randomness.normal(shape, seed, "teacher/sheet/noise", 0, range(SHEET_CLIPS))
        save_sheet(codec.decode(sample(velocity, noise, schedule, SHEET_STEPS, keep=[])[:, -1]), path)

    ema = train_teacher(stage.work, params, world, model, codec, encoder, schedule, seed, draw_sheet)
    out = stage.out / "teacher"
    codec.save(out / "codec.safetensors")
    save_hashed_words(out / "text", encoder)
    write_json(out / "real_score" / "experts.json", {"files": []})
    save_model(out / "teacher.safetensors", ema.tensors(), config, {"shift": schedule.shift})
    publish_curves(stage.work, out)


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
        latents = sample(velocity, noise.to(model.device), schedule, SHEET_STEPS, keep=[])[:, -1]
        return load_codec(compute, out / "codec.safetensors").decode(latents).cpu()


if __name__ == "__main__":
    run_stage("teacher", main, as_job=True)
