"""Rollouts that go on across steps: what an update goes on from, under which prompt, and an exact resume."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.errors import FilmstillError
from filmstill.models.attention import BlockCausal
from filmstill.params.distill import Distill
from filmstill.params.profile import compose
from filmstill.runtime import randomness
from filmstill.training.carried_streams import CarriedStreams
from filmstill.training.distillation import Distillation
from tiny_training import CARRIED, ENCODER, PROMPTS, SHAPE, WINDOWED, distillation, networks
from trainings import Cut, distil, ended

SAMPLES, FRAMES = range(4), SHAPE[0]
ALWAYS = CARRIED | {"prompt_switch": 1.0}
NEVER = CARRIED | {"prompt_switch": 0.0}
RELATIVE = ["ode_init.clips=1", "student.positions=relative"]
ORDER = [(index, update) for index in range(4) for update in ("critic0", "generator")]


def test_every_third_step_begins_a_stream_for_all_its_updates():
    clips = distillation(networks(), None, **CARRIED).clips
    begins = [clips.window_start(*update) == 0 for update in ORDER]
    assert begins == [index % 3 == 0 for index, _ in ORDER]
    assert clips.window_start(1, "generator") == FRAMES  # a whole window


def expected(run: Distillation, update: tuple[int, str], before: Tensor | None) -> Tensor:
    """The clip of an update that goes on from the frames `before` it, by the rollout of inference."""
    clips, given = run.clips, 0 if before is None else before.shape[1]
    config: RolloutConfig = clips.rollout_config
    shape = (config.noises, given + FRAMES, *SHAPE[1:])
    noise = randomness.normal(shape, 0, f"distill/{update[1]}/rollout", update[0], SAMPLES)
    now, earlier = clips.prompts_of(*update), clips.first_prompts(*update)
    text, old = (run.generator.read_text(ENCODER.encode(prompts)) for prompts in (now, earlier))
    is_changed = clips.switch_frame(*update) is not None
    blocks = rollout(
        run.generator,
        lambda frame: old if is_changed and frame < given else text,
        noise,
        config,
        clips.exit_steps(*update),
        (given, given + FRAMES),
        before,
    )
    return torch.cat(list(blocks), dim=1)[:, given:]


@pytest.mark.parametrize("changes", [ALWAYS, NEVER], ids=["changes", "the same prompt"])
@torch.no_grad()
def test_a_steps_updates_go_on_from_the_last_frames_of_the_generator_in_the_one_before(changes: dict):
    run = distillation(networks(), None, **changes)
    last = None
    for update in ORDER:
        latents, text, counted = run.clips.generate(*update, SAMPLES)
        assert torch.equal(latents, expected(run, update, last if update[0] % 3 else None))
        assert torch.equal(text, ENCODER.encode(run.clips.prompts_of(*update))) and counted.all()
        if update[1] == "generator":
            last = latents[:, -WINDOWED.window_frames :]


def test_a_stream_keeps_its_prompt_until_it_changes():
    clips = distillation(networks(), None, **NEVER).clips
    of_steps = [clips.prompts_of(index, "generator") for index in range(4)]
    first, second = ([PROMPTS[n] for n in clips.drawn_prompts(index, "generator")] for index in (0, 3))
    assert of_steps == [first, first, first, second]
    assert clips.prompts_of(1, "critic0") == clips.prompts_of(2, "critic0") == of_steps[0]
    clips = distillation(networks(), None, **ALWAYS).clips
    for index, update in ((1, "critic0"), (1, "generator"), (2, "generator")):
        before, now = clips.first_prompts(index, update), clips.prompts_of(index, update)
        assert before == clips.prompts_of(index - 1, "generator") != now
        assert set(clips._all_prompts(index, update)) == {*before, *now}


def test_resumed_in_mid_stream_is_uninterrupted_bit_for_bit(tmp_path):
    distil(Cut(tmp_path / "whole"), **CARRIED)
    for before in (1, 2, 3):
        distil(Cut(tmp_path / "cut", before=before), **CARRIED)
    distil(Cut(tmp_path / "cut"), **CARRIED)
    (losses, state), (resumed_losses, resumed) = ended(tmp_path / "whole"), ended(tmp_path / "cut")
    assert losses == resumed_losses and state.keys() == resumed.keys() and "buffer/streams" in state
    assert all(torch.equal(state[name], resumed[name]) for name in state)
    assert state["buffer/streams"].abs().max() > 0


def test_the_sink_is_carried_on_with_the_last_frames():
    attention = BlockCausal(3, window_frames=9, sink_frames=3, relative=True)
    params = Distill(rollout_frames=36, carry_on=True, batch=2)
    streams = CarriedStreams.of(params, (12, 1, 1, 1), attention, [range(2)], torch.device("cpu"))
    first = torch.arange(12.0).view(1, 12, 1, 1, 1)
    streams.keep(range(1), first)
    assert streams.context(range(1)).flatten().tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    streams.keep(range(1), torch.cat([streams.context(range(1)), first + 12], dim=1))
    assert streams.context(range(1)).flatten().tolist() == [0, 1, 2, 18, 19, 20, 21, 22, 23]
    assert not streams.context(range(1, 2)).any()


@torch.no_grad()
def test_a_change_that_computes_the_context_anew_takes_another_sink():
    """As in serving, where `recache` begins anew with the last frames, which then are the sink."""
    run = distillation(networks(), None, **ALWAYS)
    attention = BlockCausal(3, window_frames=6, sink_frames=3, relative=True)
    clips = run.clips
    clips.rollout_config = replace(clips.rollout_config, attention=attention, prompt_change="recache")
    clips.streams = CarriedStreams.of(run.params, SHAPE, attention, [SAMPLES], torch.device("cpu"))
    first = clips.generate(0, "generator", SAMPLES).latents
    assert torch.equal(clips.streams.context(SAMPLES), first)
    second = clips.generate(1, "generator", SAMPLES).latents
    assert clips.window_start(1, "generator") == clips.switch_frame(1, "generator") == 3
    assert torch.equal(clips.streams.context(SAMPLES), torch.cat([first[:, 3:], second[:, 3:]], dim=1))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.rollout_frames=null"], "distill.rollout_frames: is None, allowed: the length of a stream"),
        (["distill.rollout_frames=12"], "is 12, allowed: a multiple of world.frames (12) above it"),
        (["distill.rollout_frames=30"], "is 30, allowed: a multiple of world.frames (12) above it"),
        (["student.window_frames=null", "ode_init.clips=1"], "student.window_frames: is None, allowed: a number"),
        (["student.sink_frames=3", "ode_init.clips=1"], "student.positions: is 'absolute', allowed: relative where"),
        (
            ["student.sink_frames=2", "ode_init.clips=1", "student.positions=relative"],
            "student.sink_frames: is 2, allowed: whole blocks of the student: 3, 6, 9, …",
        ),
        (
            [*RELATIVE, "student.sink_frames=12", "student.window_frames=15", "samples.long_window_frames=15"],
            "student.sink_frames: is 12, allowed: at most world.frames - student.block_frames = 9",
        ),
    ],
)
def test_streams_that_cannot_be_carried_on_are_refused(overrides: list[str], message: str):
    with pytest.raises(FilmstillError) as error:
        compose("embedded", ["distill.carry_on=true", *overrides])
    assert message in str(error.value)
