"""The best guess that a teacher is compared with: the posterior mean over the phases of a motion."""

import torch

from filmstill.params.world import World
from filmstill.training.teacher import fit_codec
from posterior import Clips, best_guess, drawn

WORLD, COUNT = World(amplitude=4, period=20, any_phase=True), 6


def clips_with_noise() -> Clips:
    return drawn(fit_codec(WORLD, 0), WORLD, COUNT)


def test_the_best_guess_is_the_clip_at_little_noise_and_the_mean_of_all_phases_at_the_most():
    clips = clips_with_noise()
    assert torch.allclose(best_guess(clips, 0.3, reach=12), clips.x0.flatten(2), atol=1e-4)
    assert torch.allclose(best_guess(clips, 1.0, reach=12), clips.phases.mean(dim=1), atol=1e-5)


def test_what_more_frames_tell_makes_the_guess_better():
    clips = clips_with_noise()
    errors = [(best_guess(clips, 0.93, reach) - clips.x0.flatten(2)).square().mean().item() for reach in (0, 1, 3, 12)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 4
