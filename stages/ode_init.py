"""Turn the teacher's weights into a causal student by regression of the teacher's own trajectories."""

from filmstill.cluster.dispatch import dispatched
from filmstill.cluster.run import run_stage
from filmstill.params.load import section
from filmstill.params.ode_init import OdeInit
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Train on every rank of the job; write everything that data/ode_init holds."""
    from filmstill.artifacts import PAIRS, TEACHER  # below, torch: a process that only submits the job needs none
    from filmstill.training.gate import finish, loss_ratio
    from filmstill.training.ode_init import train_ode_init
    from filmstill.training.pairs import Pairs
    from filmstill.training.preview import Preview
    from filmstill.training.setup import Setup

    params, setup = section(OdeInit, "ode_init"), Setup.prepared()
    micro_batches = setup.micro_batches(params.batch, "ode_init.batch")
    pairs = Pairs.load(PAIRS)
    preview = Preview.of(setup, params.gate, "ode_init")
    setup.encoder.prepare(pairs.prompts)
    model = setup.trained(TEACHER)
    losses = train_ode_init(
        stage.work,
        params,
        pairs,
        setup.rollout_config.attention,
        setup.student.denoising_steps,
        setup.schedule,
        model,
        setup.encoder,
        setup.seed,
        micro_batches,
        lambda path: preview.save_sheet(model, path),
    )
    metrics = {**preview.score(model), "loss_ratio": loss_ratio(losses)}
    file = stage.out / "ode_init" / "init.safetensors"
    finish(stage.work, file, model.state_dict(), setup, params.gate, metrics)


if __name__ == "__main__":
    run_stage("ode_init", dispatched(main))
