"""Distil the teacher into the causal student, on the student's own rollouts (Self Forcing, arXiv:2506.08009)."""

from filmstill.cluster.run import run_stage
from filmstill.params.distill import Distill
from filmstill.params.world import OPEN
from filmstill.work.stage import Stage


def main(stage: Stage) -> None:
    """Train on every rank of the job; write data/distill."""
    from importlib import import_module

    # Imported here, since torch takes seconds: a process that only submits the job does not need it.
    from filmstill.artifacts import INIT, PAIRS, TEACHER, TRAIN_PROMPTS
    from filmstill.prompts.store import load_prompts
    from filmstill.training.carried_streams import CarriedStreams
    from filmstill.training.distillation import Distillation, train_distillation
    from filmstill.training.gate import finish, loss_ratio
    from filmstill.training.given_clips import GivenClips
    from filmstill.training.loss_windows import LossWindows
    from filmstill.training.pairs import Pairs
    from filmstill.training.preview import Preview
    from filmstill.training.setup import Setup
    from filmstill.training.student_clips import StudentClips

    params, setup = stage.params.section(Distill, "distill"), Setup.prepared(stage.params)
    micro_batches = setup.micro_batches(params.batch, "distill.batch")
    prompts = load_prompts(TRAIN_PROMPTS)["text"].tolist()
    preview, no_text = Preview.of(setup, params.gate, "distill"), setup.no_text()
    critic, generator = setup.trained(TEACHER), setup.trained(INIT)
    # Loaded by name: dvc.yaml depends on the chosen objective only, so an edit of another one does not rerun the stage.
    objective_module = import_module(f"filmstill.objectives.{params.objective}")
    objective = objective_module.Objective(setup.real_score(), critic, setup.schedule, params.guidance_scale, no_text)
    windows = LossWindows.of(params, setup.world.frames, setup.window_stride)
    attention = setup.rollout_config.attention
    later = params.carry_on or windows.later
    clips = StudentClips(
        generator,
        setup.rollout_config,
        setup.encoder,
        prompts,
        setup.latent_shape,
        setup.seed,
        params.batch,
        windows,
        params.prompt_switch,
        params.exit_per_block,
        GivenClips.of(params, Pairs.load(PAIRS), attention) if params.given else None,
        CarriedStreams.of(params, setup.latent_shape, attention, micro_batches, setup.device),
        preview.codec if later and setup.world.name == OPEN else None,
    )
    run = Distillation(params, objective, clips, micro_batches)
    clips.prepare_text(run.updates())
    losses = train_distillation(stage.work, run, lambda path: preview.save_sheet(generator, path))
    with run.ema.swapped_into(generator):
        metrics = {**preview.score(generator), "loss_ratio": loss_ratio(losses)}
    file = stage.out / "distill" / "student.safetensors"
    finish(stage.work, file, run.ema.tensors(), setup, params.gate, metrics)


if __name__ == "__main__":
    run_stage("distill", main, as_job=True)
