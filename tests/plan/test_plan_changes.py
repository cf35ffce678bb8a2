"""Plans count the clips that begin with a picture and the streams whose prompt changes, where they are made."""

from dataclasses import replace
from math import prod

import pytest
import torch

from counting import H100, counted
from filmstill.diffusion.rollout import rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.models.attention import BlockCausal
from filmstill.models.dit import VideoDiT
from filmstill.models.text import HashedWords
from filmstill.params.profile import compose
from filmstill.plan.run import Run
from filmstill.plan.stages import StagePlan, plan
from rollouts import rollout_config


def stage(run: Run, name: str) -> StagePlan:
    return next(each for each in plan(run) if each.name == name)


def samples(run: Run) -> StagePlan:
    return stage(run, "samples")


def test_operations_and_bytes_of_both_arms_are_those_of_their_rollouts():
    run = Run(compose("smoke", ["samples.long_window_frames=6"]), H100)
    without = samples(Run(replace(run.params, samples=replace(run.params.samples, changed_prompts=0)), H100))
    model, encoder = VideoDiT(run.config), HashedWords(run.params.model.text_len, run.config.text_dim)

    def operations(frames: int, attention: BlockCausal, changes: bool) -> float:
        steps = rollout_config(FlowSchedule(3), 4, attention, 0.0)
        noise, text = torch.zeros(1, 4, *run.latent_shape(frames)), encoder.encode(["a red star bobs"])

        def roll() -> None:
            first = model.read_text(text)
            second = model.read_text(text) if changes else first
            list(
                rollout(
                    model, lambda frame: second if frame >= run.params.samples.change_frame else first, noise, steps
                )
            )

        with torch.no_grad():
            return counted(roll)

    picture = operations(12, run.attention, changes=False)
    changed = operations(36, replace(run.attention, window_frames=6), changes=True)
    assert samples(run).flops - without.flops == 3 * (picture + changed)
    latents = prod(run.latent_shape(12)) + prod(run.latent_shape(36))
    assert samples(run).artifacts - without.artifacts == 3 * 4 * latents


def test_the_open_world_has_neither():
    run = Run(compose("wan-1.3b", []), H100)
    assert run.params.samples.changed_prompts > 0
    without = replace(run.params, samples=replace(run.params.samples, changed_prompts=0))
    assert samples(run) == samples(Run(without, H100))


def test_rollouts_of_the_open_world_decode_what_is_before_their_window(monkeypatch: pytest.MonkeyPatch):
    run = Run(compose("wan-1.3b", ["distill.rollout_frames=63"]), replace(H100, gpus=8))
    shares, params = run.loss_windows.shares(), run.params.distill
    assert min(shares) == 0 and len(shares) > 2
    decoded = sum(share * run.decode_flops(start + 1) for start, share in shares.items() if start)
    planned = stage(run, "distill").flops
    monkeypatch.setattr(Run, "decode_flops", lambda *_: 0.0)
    updates = params.steps * params.batch * (params.critic_updates + 1)
    assert planned - stage(run, "distill").flops == pytest.approx(updates * decoded)
    assert stage(Run(compose("wan-1.3b", []), run.machine), "distill").flops < planned
