"""Train the embedded teacher and measure its codec."""

from pathlib import Path

from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.distill.sheet import save_sheet
from filmstill.distill.teacher import fit_codec, new_model, train_teacher
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, save_model
from filmstill.params.load import read_seed, section
from filmstill.params.shared import Compute, Model, Schedule, World
from filmstill.params.teacher import Teacher
from filmstill.runtime import randomness
from filmstill.runtime.compute import prepare
from filmstill.runtime.files import save_tensors
from filmstill.runtime.stage import Stage, run
from filmstill.worlds import digits

SHEET_CLIPS, SHEET_STEPS, SHEET_GUIDANCE = 6, 16, 3.0


def main(stage: Stage) -> None:
    params, world, sizes = section(Teacher, "teacher"), section(World, "world"), section(Model, "model")
    schedule, seed = FlowSchedule(section(Schedule, "schedule").shift), read_seed()
    prepare(section(Compute, "compute"))
    codec = fit_codec(world, seed)
    encoder = HashedWords(sizes.text_len, sizes.text_dim)
    shown = digits.draw(world, seed, "teacher/sheet", 0, range(SHEET_CLIPS))
    shape = tuple(codec.encode(shown.video).shape[1:])
    config = config_of(sizes, in_channels=shape[1])
    model = new_model(config, seed)

    def draw_sheet(path: Path) -> None:
        velocity = guided(model, encoder.encode(shown.prompts), encoder.encode([""]), SHEET_GUIDANCE)
        noise = randomness.normal(shape, seed, "teacher/sheet/noise", 0, range(SHEET_CLIPS))
        save_sheet(codec.decode(sample(velocity, noise, schedule, SHEET_STEPS, keep=[])[:, -1]), path)

    ema = train_teacher(stage.work, params, world, model, codec, encoder, schedule, seed, draw_sheet)
    save_tensors(stage.out / "teacher" / "codec.safetensors", codec.tensors())
    save_model(stage.out / "teacher" / "teacher.safetensors", ema.tensors(), config, {"shift": schedule.shift})
    stage.keep_curves()


if __name__ == "__main__":
    run("teacher", main)
