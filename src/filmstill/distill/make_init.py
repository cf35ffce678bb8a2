"""The stage ode_init, from its parameters to what it publishes."""

from filmstill.artifacts import PAIRS, TEACHER
from filmstill.distill.gate import finish, loss_ratio
from filmstill.distill.ode_init import train_ode_init
from filmstill.distill.pairs import Pairs
from filmstill.distill.probe import Probe
from filmstill.distill.setup import Setup
from filmstill.params.load import section
from filmstill.params.ode_init import OdeInit
from filmstill.runtime.stage import Stage


def make_init(stage: Stage) -> None:
    """Train in the stage's work folder, on every process of a job; writes everything that data/ode_init holds."""
    params, setup = section(OdeInit, "ode_init"), Setup.prepared()
    parts = setup.parts(params.batch, "ode_init.batch")
    pairs = Pairs.load(PAIRS)
    probe = Probe.of(setup, params.gate, "ode_init")
    setup.encoder.prepare(pairs.prompts)
    model = setup.trained(TEACHER)
    losses = train_ode_init(
        stage.work,
        params,
        pairs,
        setup.plan.attention,
        setup.student.steps,
        setup.schedule,
        model,
        setup.encoder,
        setup.seed,
        parts,
        lambda path: probe.save_sheet(model, path),
    )
    metrics = {**probe.score(model), "loss_ratio": loss_ratio(losses)}
    finish(stage, "init.safetensors", model.state_dict(), setup, params.gate, metrics)
