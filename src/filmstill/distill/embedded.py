"""The embedded world's teacher: measure its codec, train its network, write what later stages read."""

from pathlib import Path

from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.distill.sheet import save_sheet
from filmstill.distill.teacher import fit_codec, new_model, train_teacher
from filmstill.models.load import DTYPES, save_hashed_words
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, save_model
from filmstill.params.load import read_seed, section
from filmstill.params.shared import Compute, Model, Schedule, World
from filmstill.params.teacher import Teacher
from filmstill.runtime import randomness
from filmstill.runtime.files import write_json
from filmstill.runtime.stage import Stage
from filmstill.worlds import digits

SHEET_CLIPS, SHEET_STEPS, SHEET_GUIDANCE = 6, 16, 3.0


def train_embedded(stage: Stage) -> None:
    """Train in the stage's work folder; writes everything that data/teacher holds."""
    params, world, sizes = section(Teacher, "teacher"), section(World, "world"), section(Model, "model")
    schedule, seed = FlowSchedule(section(Schedule, "schedule").shift), read_seed()
    codec = fit_codec(world, seed)
    encoder = HashedWords(sizes.text_len, sizes.text_dim)
    shown = digits.draw(world, seed, "teacher/sheet", 0, range(SHEET_CLIPS))
    shape, config = world.latent_shape(sizes.in_channels), config_of(sizes)
    model, compute = new_model(config, seed), section(Compute, "compute")
    model.precision, model.checkpointing = DTYPES[compute.precision], compute.checkpointing

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
    stage.keep_curves()
