"""Every dimension falls for the faults it must detect, and does not move for others."""

import pytest
import torch

from filmstill.evaluate import faults
from filmstill.evaluate.dimensions import NAMES, TrackedClips, aesthetic_quality, scores
from filmstill.evaluate.symbols_scores import Bounds
from filmstill.params.world import World
from filmstill.training.teacher import fit_codec
from filmstill.worlds import symbols
from filmstill.worlds.judge import judge_frames, look_at

WORLD = World()
CODEC = fit_codec(WORLD, 0)
DRAWN = symbols.draw(WORLD, 3, "faults", 0, range(48))
REAL = CODEC.decode(CODEC.encode(DRAWN.video))
BOUNDS = Bounds.measure(CODEC, WORLD, 96, 0)
FALLS, STAYS = -0.1, 0.05  # as shares of the way from the world's floor to its ceiling

# fault -> dimensions that must fall, dimensions that must not move
RESPONSES = {
    "blur": (
        {"aesthetic_quality", "imaging_quality", "object_class", "overall_consistency"},
        {"colour", "motion", "dynamic_degree"},
    ),
    "freeze": (
        {"dynamic_degree", "motion", "overall_consistency"},
        {"object_class", "colour", "subject_consistency", "aesthetic_quality"},
    ),
    "flicker": (
        {"temporal_flickering", "motion_smoothness", "aesthetic_quality"},
        {"object_class", "colour", "motion", "imaging_quality"},
    ),
    "drift": (
        {"subject_consistency", "temporal_flickering", "aesthetic_quality", "object_class", "overall_consistency"},
        {"dynamic_degree"},
    ),
    "wrong_colour": ({"colour", "overall_consistency"}, {"object_class", "motion", "subject_consistency"}),
    "discolour": (
        {"subject_consistency", "aesthetic_quality", "colour", "overall_consistency"},
        {"object_class", "motion"},
    ),
    "noise": (
        {"background_consistency", "aesthetic_quality", "imaging_quality", "temporal_flickering"},
        {"dynamic_degree"},
    ),
    "jitter": (
        {"motion_smoothness", "motion"},
        {"object_class", "colour", "background_consistency", "aesthetic_quality"},
    ),
}


def normalised(video: torch.Tensor, attributes=DRAWN.attributes) -> dict[str, float]:
    frames = look_at(video)
    fidelity = judge_frames(frames, attributes, WORLD).fidelity
    raw = scores(TrackedClips.of(frames), attributes, fidelity, WORLD)
    span = {name: BOUNDS.ceiling[name] - BOUNDS.floor[name] for name in NAMES}
    return {name: (float(raw[name].mean()) - BOUNDS.floor[name]) / span[name] for name in NAMES}


CLEAN = normalised(REAL)


def test_the_ceiling_is_above_the_floor_and_real_clips_reach_it():
    assert all(BOUNDS.ceiling[name] > BOUNDS.floor[name] for name in NAMES)
    assert all(value == pytest.approx(1, abs=0.06) for value in CLEAN.values())


@pytest.mark.parametrize("fault", RESPONSES)
def test_a_fault_lowers_its_dimensions(fault: str):
    after = normalised(getattr(faults, fault)(REAL))
    falls, stays = RESPONSES[fault]
    assert {name: after[name] - CLEAN[name] for name in falls if after[name] - CLEAN[name] > FALLS} == {}
    assert {name: after[name] - CLEAN[name] for name in stays if abs(after[name] - CLEAN[name]) > STAYS} == {}


def test_swapped_prompts_lower_every_semantic_dimension_and_no_other():
    after = normalised(REAL, DRAWN.attributes[1:] + DRAWN.attributes[:1])
    for name in NAMES:
        semantic = name in ("object_class", "colour", "motion", "overall_consistency")
        assert (after[name] - CLEAN[name] < -0.5) if semantic else after[name] == CLEAN[name], name


def test_a_picture_is_as_good_as_it_is_near_to_an_ideal_one():
    """Ideal frames reach the greatest PSNR; one that is a tenth darker lacks a tenth of every pixel."""
    ideal = TrackedClips.of(look_at(DRAWN.video))
    assert aesthetic_quality(ideal).tolist() == pytest.approx([60.0] * len(DRAWN.video))
    dark = aesthetic_quality(TrackedClips.of(look_at(0.9 * DRAWN.video)))
    expected = -10 * (0.1 * DRAWN.video).square().mean(dim=(2, 3, 4)).log10().mean(dim=1)
    assert dark.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_every_dimension_responds_to_some_fault():
    assert set().union(*(falls for falls, _ in RESPONSES.values())) == set(NAMES)
