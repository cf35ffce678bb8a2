"""The gate of a student's stage: its own clips and its own stream, and what a missed gate reads."""

from typing import Any

import pytest
import torch
from torch import Tensor

from counting import Live
from filmstill.diffusion.rollout import RolloutConfig, rollout
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError, GateError
from filmstill.models.attention import BlockCausal
from filmstill.models.rope import rope_table
from filmstill.params.gates import Gate
from filmstill.params.profile import compose
from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.training import preview
from filmstill.training.gate import _check, _with_gate
from filmstill.training.preview import Preview
from filmstill.worlds.judge import Judgement
from goldens import TINY, tiny
from rollouts import rollout_config

SHAPE, PROMPTS = (6, TINY.in_channels, 4, 6), 3
CONFIG = rollout_config(FlowSchedule(5), 2, BlockCausal(3, 6), 0.0)


class Copy:
    """A codec whose pixels are the latents; it counts the frames that it decodes together."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def decode(self, latents: Tensor) -> Tensor:
        self.frames.append(latents.shape[1])
        return latents


def preview_of(stream_frames: int | None, config: RolloutConfig = CONFIG) -> Preview:
    texts = torch.randn(PROMPTS, 5, TINY.text_dim, generator=torch.Generator().manual_seed(1))
    attributes: list[Any] = [None] * PROMPTS
    return Preview(attributes, texts, Copy(), World(), config, SHAPE, 0, stream_frames)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every clip that the judge saw; in each call after the first one more of them is wrong."""
    seen: list[Tensor] = []

    def judge(video: Tensor, attributes: list[Any], world: World) -> Judgement:
        assert len(attributes) == len(video) == PROMPTS and world == World()
        right = torch.ones(len(video), 3, dtype=torch.bool)
        right[: len(seen), 1] = False
        seen.append(video.clone())
        return judgement(right)

    monkeypatch.setattr(preview, "judge", judge)
    return seen


def judgement(right: Tensor) -> Judgement:
    """What the judge says where these attributes [B, 3] are right; a gate reads no more."""
    return Judgement(shown=right.int(), phase=right[:, 0].int(), right=right, fidelity=right[:, 0].float())


def test_without_a_stream_only_clips_are_scored(judged):
    assert preview_of(None).score(tiny("causal")) == {"all_attributes": 1.0} and len(judged) == 1


@torch.no_grad()
def test_the_stream_is_the_worst_of_its_windows(judged):
    found, model = preview_of(18), tiny("causal")
    scores = found.score(model)
    assert scores["stream_windows"] == pytest.approx([2 / 3, 1 / 3, 0]) and scores["stream"] == 0
    assert scores["all_attributes"] == 1
    assert found.codec.frames == [6] * 4  # decoded window by window
    shape, samples = (CONFIG.noises, 3, *SHAPE[1:]), range(PROMPTS)
    drawn = [randomness.normal(shape, 0, "probe/stream", start, samples) for start in range(0, 18, 3)]
    stream = torch.cat(list(rollout(model, model.read_text(found.texts), torch.cat(drawn, 2), CONFIG)), 1)
    assert torch.equal(torch.cat(judged[1:], 1), stream), "every frame once, in order"


def test_a_stream_is_one_rollout_and_does_not_depend_on_its_length(judged):
    """Its windows go on from one another, and a frame after the last whole window is not rolled out."""
    for frames in (18, 21, 12):
        preview_of(frames).score(tiny("causal"))
    (_, *long), (_, *longer), (_, *short) = judged[:4], judged[4:8], judged[8:]
    for a, b in [*zip(long, longer, strict=True), *zip(long, short, strict=False)]:
        assert torch.equal(a, b)
    assert len(short) == 2 and not torch.equal(long[0], long[1])
    alone = preview_of(12, rollout_config(FlowSchedule(5), 2, BlockCausal(3, 3), 0.0))
    del judged[:]
    alone.score(tiny("causal"))
    assert not torch.equal(judged[2], long[1]), "the second window has the first one as its context"


@torch.no_grad()
def test_the_memory_of_a_stream_does_not_grow():
    """Peak bytes beyond those of the weights, for streams of 4 and of 40 windows."""
    peaks = []
    for windows in (4, 40):
        model, live = tiny("causal"), Live()
        rope_table.cache_clear()
        with live:
            for _ in preview_of(6 * windows)._stream_windows(model, 6 * windows):
                rope_table.cache_clear()
        peaks.append(live.peak)
    assert peaks[0] == peaks[1]


def test_a_missed_stream_is_named_with_the_difference(tmp_path):
    gate = Gate(min_all_attributes=0.5, stream_frames=60, min_stream=0.8)
    metrics = {"all_attributes": 0.75, "stream": 0.3, "stream_windows": [0.9, 0.3], "loss_ratio": 1.0}
    with pytest.raises(GateError) as missed:
        _check(gate, metrics, tmp_path / "distill")
    assert "misses its gate: stream is 0.300, 0.500 below distill.gate.min_stream. Weights" in str(missed.value)
    assert "\n" not in str(missed.value)
    written = _with_gate(gate, metrics)
    assert written["stream_windows"] == [0.9, 0.3] and written["gate"]["passed"] is False
    good = {**metrics, "stream": 0.8}
    _check(gate, good, tmp_path / "distill")
    assert _with_gate(gate, good)["gate"]["passed"] is True
    _check(Gate(stream_frames=60, min_stream=None), metrics, tmp_path)  # made and written, not checked


@pytest.mark.parametrize(
    ("profile", "override", "message"),
    [
        ("embedded", "stream_frames=9", "is 9, allowed: null, or at least world.frames (12)"),
        ("embedded", "stream_frames=61", "is 61, allowed: whole blocks of the student: 3, 6, 9, …"),
        (
            "embedded",
            "stream_frames=null",
            "min_stream: is 0.8, allowed: null where distill.gate.stream_frames is null",
        ),
        ("embedded", "min_stream=1.5", "is 1.5, allowed: null or a number in [0, 1]"),
        ("wan-mini", "stream_frames=12", "is 12, allowed: null: no judge scores clips where world.name is open"),
    ],
)
def test_a_stream_that_no_judge_could_score_is_refused(profile: str, override: str, message: str):
    with pytest.raises(FilmstillError) as refused:
        compose(profile, [f"distill.gate.{override}"])
    assert message in str(refused.value) and "distill.gate." in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_a_world_with_a_judge_has_a_stream():
    for profile in ("wan-mini", "wan-1.3b", "wan-14b-teacher"):
        params = compose(profile, [])
        for gate in (params.ode_init.gate, params.distill.gate):
            assert (gate.stream_frames, gate.min_stream) == (None, None)
        assert (params.distill.rollout_frames, params.ode_init.clips, params.ode_init.clean_share) == (None, 1, 0.0)
    gate = compose("embedded", []).distill.gate
    assert (gate.stream_frames, gate.min_stream) == (60, 0.8)
    assert compose("embedded", []).ode_init.gate.stream_frames is None
    assert compose("embedded", ["distill.gate.min_stream=0.5"]).distill.gate.stream_frames == 60
    assert compose("embedded", ["distill.gate.stream_frames=24"]).distill.gate.min_stream == 0.8
