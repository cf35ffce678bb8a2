"""Initialise the causal student from the teacher by ODE regression (CausVid, arXiv:2412.07772)."""

from filmstill.cluster.run import run_stage
from filmstill.params.ode_init import OdeInit
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Train on every rank of the job; write data/ode_init."""
    # Imported here, since torch takes seconds: a process that only submits the job does not need it.
    from filmstill.artifacts import PAIRS, TEACHER
    from filmstill.training.gate import finish, loss_ratio
    from filmstill.training.ode_init import OdeRegression, train_ode_init
    from filmstill.training.pairs import Pairs
    from filmstill.training.preview import Preview
    from filmstill.training.setup import Setup

    params, setup = stage.params.section(OdeInit, "ode_init"), Setup.prepared(stage.params)
    micro_batches = setup.micro_batches(params.batch, "ode_init.batch")
    pairs = Pairs.load(PAIRS)
    preview = Preview.of(setup, params.gate, "ode_init")
    setup.encoder.prepare(pairs.prompts)
    model = setup.trained(TEACHER)
    run = OdeRegression(
        params,
        pairs,
        setup.rollout_config.attention,
        (setup.student.steps_of_first_block, setup.student.denoising_steps),
        setup.schedule,
        model,
        setup.encoder,
        setup.seed,
        micro_batches,
    )
    losses = train_ode_init(stage.work, run, lambda path: preview.save_sheet(model, path))
    metrics = {**preview.score(model), "loss_ratio": loss_ratio(losses)}
    file = stage.out / "ode_init" / "init.safetensors"
    finish(stage.work, file, model.state_dict(), setup, params.gate, metrics)


if __name__ == "__main__":
    run_stage("ode_init", main, as_job=True)
