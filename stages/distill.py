"""Self-Forcing distillation of the causal student."""

from filmstill.artifacts import INIT, TEACHER, TRAIN_PROMPTS
from filmstill.cluster.dispatch import dispatched
from filmstill.distill.dmd import Dmd
from filmstill.distill.probe import Probe, check_gate, judged, loss_ratio
from filmstill.distill.self_forcing import SelfForcing, train_self_forcing
from filmstill.distill.setup import Setup
from filmstill.models.weights import save_model
from filmstill.params.distill import Distill
from filmstill.params.load import section
from filmstill.prompts.store import load_prompts
from filmstill.runtime.distributed import is_first
from filmstill.runtime.files import write_json
from filmstill.runtime.stage import Stage, run


def main(stage: Stage) -> None:
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
    out = stage.out / "distill"
    with self_forcing.ema.swapped_into(generator):
        metrics = {**probe.score(generator), "loss_ratio": loss_ratio(losses)}
    save_model(out / "student.safetensors", self_forcing.ema.tensors(), setup.config, setup.facts())
    if is_first():
        write_json(out / "metrics.json", judged(params.gate, metrics))
        stage.keep_curves()
    check_gate("distill", params.gate, metrics, out)


if __name__ == "__main__":
    run("distill", dispatched(main))
