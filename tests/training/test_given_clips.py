"""Rollouts in training that begin with frames of the teacher's clips: what is drawn, and what an update reads."""

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.rollout import rollout
from filmstill.models.attention import BlockCausal
from filmstill.params.distill import Distill
from filmstill.runtime import randomness
from filmstill.training.given_clips import GivenClips
from filmstill.training.loss_windows import LossWindows
from filmstill.training.pairs import Pairs
from filmstill.training.student_clips import StudentClips
from goldens import tiny
from rollouts import rollout_config
from tiny_training import ENCODER, PROMPTS, SCHEDULE, SHAPE

SAMPLES, STEPS = range(4), 300
SHAPE = (9, *SHAPE[1:])
CLEAN = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0)).bfloat16()  # [pairs, nodes, ...]
TEXTS = ["a blue sun sways", "a red star bobs", "a green flag bobs"]
PAIRS = Pairs(torch.tensor([1.0, 0.0]), TEXTS, SHAPE, [(CLEAN, row) for row in range(3)])


def clips(share: float, attention: BlockCausal = BlockCausal(3), **options) -> StudentClips:  # noqa: B008
    given = GivenClips.of(Distill(given=share), PAIRS, attention)
    config, windows = rollout_config(SCHEDULE, 2, attention, 0.0), LossWindows(range(3, 4), 0.5)
    return StudentClips(tiny("causal"), config, ENCODER, PROMPTS, SHAPE, 0, 4, windows, given=given, **options)


@pytest.mark.parametrize(
    ("attention", "lengths"),
    [
        (BlockCausal(3), [1, 3, 6]),
        (BlockCausal(1), [1, 2, 3, 4, 5, 6, 7, 8]),
        (BlockCausal(4, independent_first=True), [1, 5]),
    ],
)
def test_a_frame_or_whole_blocks_are_given_and_a_block_is_left_to_make(attention: BlockCausal, lengths: list[int]):
    source = clips(1.0, attention)
    assert source.given.lengths == lengths
    assert {source.given_frames(index, "generator") for index in range(STEPS)} == set(lengths)


def test_a_share_of_the_updates_is_given_frames():
    counts = [clips(0.3).given_frames(index, "critic0") for index in range(STEPS)]
    assert 0.2 < sum(count > 0 for count in counts) / STEPS < 0.4
    assert not any(clips(0.0).given_frames(index, "critic0") for index in range(STEPS))


def expected_frames(source: StudentClips, index: int) -> tuple[Tensor, list[str]]:
    rows = source.given.chosen(0, "distill/generator", index, 4)
    return CLEAN[rows, 1].float(), [TEXTS[row] for row in rows]


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 6), (3, 3)])
def test_an_update_is_a_rollout_that_begins_with_the_teachers_frames_under_their_prompts(start: int, count: int):
    source = clips(1.0)
    drawn = [(source.window_start(i, "generator"), source.given_frames(i, "generator")) for i in range(STEPS)]
    index = drawn.index((start, count))
    video, text, counted = source.generate(index, "generator", SAMPLES)
    frames, prompts = expected_frames(source, index)
    assert torch.equal(text, ENCODER.encode(prompts)) and source._all_prompts(index, "generator") == prompts
    shape = (2, start + SHAPE[0], *SHAPE[1:])
    noise = randomness.normal(shape, 0, "distill/generator/rollout", index, SAMPLES)
    exits, model = source.exit_steps(index, "generator"), source.generator
    window = (start, start + SHAPE[0])
    blocks = rollout(model, model.read_text(text), noise, source.rollout_config, exits, window, frames[:, :count])
    assert torch.equal(video, torch.cat(list(blocks), 1)[:, start:])
    assert counted.tolist() == [frame >= count for frame in range(start, start + SHAPE[0])], "given frames don't count"
    if not start:
        assert torch.equal(video[:, :count].detach(), frames[:, :count])
    video.square().sum().backward()
    assert max(p.grad.abs().max() for p in model.parameters() if p.grad is not None) > 0


def test_given_frames_belong_to_the_prompt_before_a_change():
    source = clips(1.0, prompt_switch=1.0)
    index = next(i for i in range(STEPS) if source.window_start(i, "generator"))
    assert source.first_prompts(index, "generator") == expected_frames(source, index)[1]
    drawn = [PROMPTS[number] for number in source.drawn_prompts(index, "generator")]
    assert source.prompts_of(index, "generator") == drawn


def test_micro_batches_are_parts_of_the_batch():
    source = clips(1.0)
    whole, text, _ = source.generate(0, "generator", SAMPLES)
    parts = [source.generate(0, "generator", range(first, first + 2)) for first in (0, 2)]
    assert torch.equal(torch.cat([part[1] for part in parts]), text)
    assert (torch.cat([part[0] for part in parts]) - whole).abs().max() <= 1e-5 * whole.abs().max()
