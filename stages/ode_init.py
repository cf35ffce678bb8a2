"""Turn the teacher's weights into a causal student by regression of the teacher's own trajectories."""

from filmstill.artifacts import PAIRS, TEACHER
from filmstill.cluster.dispatch import dispatched
from filmstill.distill.ode_init import train_ode_init
from filmstill.distill.pairs import Pairs
from filmstill.distill.probe import Probe, check_gate, judged, loss_ratio
from filmstill.distill.setup import Setup
from filmstill.models.weights import save_model
from filmstill.params.load import section
from filmstill.params.ode_init import OdeInit
from filmstill.runtime.distributed import is_first
from filmstill.runtime.files import write_json
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
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
    out = stage.out / "ode_init"
    metrics = {**probe.score(model), "loss_ratio": loss_ratio(losses)}
    save_model(out / "init.safetensors", model.state_dict(), setup.config, setup.facts())
    if is_first():
        write_json(out / "metrics.json", judged(params.gate, metrics))
        stage.keep_curves()
    check_gate("ode_init", params.gate, metrics, out)


if __name__ == "__main__":
    run("ode_init", dispatched(main))
