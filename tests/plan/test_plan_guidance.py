"""Plans count the branches of guidance that are computed: one at weight 1, else two."""

from dataclasses import replace

import pytest
import torch

from counting import H100, counted
from filmstill.diffusion.sample import guided, sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.dit import VideoDiT
from filmstill.models.text import HashedWords
from filmstill.params.profile import compose
from filmstill.plan.run import Run
from filmstill.plan.stages import StagePlan, plan


def stages(run: Run) -> dict[str, StagePlan]:
    return {stage.name: stage for stage in plan(run)}


@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_operations_of_a_guided_clip_are_those_counted(weight):
    """Pairs, and clips of the arm teacher."""
    overrides = [f"{stage}.guidance_scale={weight}" for stage in ("ode_pairs", "samples")]
    run = Run(compose("smoke", [*overrides, "samples.teacher_steps=4", "ode_pairs.sampling_steps=4"]), H100)
    model, encoder = VideoDiT(run.config), HashedWords(run.params.model.text_len, run.config.text_dim)
    noise = torch.zeros(1, *run.latent_shape())

    def clip() -> None:
        velocity = guided(model, encoder.encode(["a red star bobs"]), encoder.encode([""]), weight)
        sample(velocity, noise, FlowSchedule(3), 4, keep=[])

    operations = counted(clip)
    assert stages(run)["ode_pairs"].flops == run.params.ode_pairs.prompts * operations
    unguided = stages(Run(replace(run.params, samples=replace(run.params.samples, guidance_scale=1.0)), H100))
    more = stages(run)["samples"].flops - unguided["samples"].flops
    params = run.params.samples
    batch = min(params.batch, clips := params.clips(run.params.world.name))
    made = clips + 1 + params.timing_rounds * (1 + batch)  # and those that are timed
    assert more == pytest.approx(0 if weight == 1 else made * operations / 2)


def test_memory_of_guidance_is_that_of_its_branches():
    """One branch of two samples takes what two branches of one take."""
    changed = ("ode_pairs.guidance_scale", "samples.guidance_scale", "distill.guidance_scale")

    def planned(weight: float, batch: int) -> dict[str, StagePlan]:
        batches = [f"{stage}.batch={batch}" for stage in ("ode_pairs", "samples")]
        return stages(Run(compose("smoke", [*batches, *(f"{key}={weight}" for key in changed)]), H100))

    one, both, half = planned(1.0, 2), planned(1.5, 1), planned(1.0, 1)
    for stage, phase in (("ode_pairs", "sampling"), ("samples", "teacher")):
        assert one[stage].phases[phase].total == both[stage].phases[phase].total > half[stage].phases[phase].total
    score = "generator update, real score"
    assert one["distill"].phases[score].activations < both["distill"].phases[score].activations
    assert one["distill"].flops < both["distill"].flops
