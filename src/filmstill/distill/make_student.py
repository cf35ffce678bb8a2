"""The stage distill, from its parameters to what it publishes."""

from filmstill.artifacts import INIT, TEACHER, TRAIN_PROMPTS
from filmstill.distill.dmd import Dmd
from filmstill.distill.gate import finish, loss_ratio
from filmstill.distill.probe import Probe
from filmstill.distill.self_forcing import SelfForcing, train_self_forcing
from filmstill.distill.setup import Setup
from filmstill.params.distill import Distill
from filmstill.params.load import section
from filmstill.prompts.store import load_prompts
from filmstill.runtime.stage import Stage


def make_student(stage: Stage) -> None:
    """Train in the stage's work folder, on every process of a job; writes everything that data/distill holds."""
    params, setup = section(Distill, "distill"), Setup.prepared()
    parts = setup.parts(params.batch, "distill.batch")
    prompts = load_prompts(TRAIN_PROMPTS)["text"].tolist()
    probe, no_text = Probe.of(setup, params.gate, "distill"), setup.no_text()
    critic, generator = setup.trained(TEACHER), setup.trained(INIT)
    objective = Dmd(setup.teacher(), critic, setup.schedule, params.guidance, no_text)
    self_forcing = SelfForcing(
        params,
        generator,
        objective,
        setup.plan,
        setup.encoder,
        prompts,
        setup.latent_shape,
        setup.seed,
        parts,
    )
    self_forcing.prepare_text()
    losses = train_self_forcing(stage.work, self_forcing, lambda path: probe.save_sheet(generator, path))
    with self_forcing.ema.swapped_into(generator):
        metrics = {**probe.score(generator), "loss_ratio": loss_ratio(losses)}
    finish(stage, "student.safetensors", self_forcing.ema.tensors(), setup, params.gate, metrics)
