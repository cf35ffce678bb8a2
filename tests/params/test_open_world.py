"""Profiles of the open world: what they say, and parameters that a world cannot have."""

import hashlib
from pathlib import Path

import pytest

from filmstill.errors import FilmstillError
from filmstill.params.profile import compose
from repository import ROOT


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("base: b\n", "params/b.yaml: base: is 'a', its own base, allowed: "),
        ("base: ${x}\n", "params/a.yaml: base: Interpolation key 'x' not found"),
        ("base: nobody\n", "params/a.yaml: base: is 'nobody', allowed: embedded, b"),
    ],
)
def test_a_base_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: str, message: str):
    monkeypatch.chdir(tmp_path)
    Path("params").mkdir()
    Path("params/a.yaml").write_text(overlay)
    Path("params/b.yaml").write_text("base: a\n")
    with pytest.raises(FilmstillError) as caught:
        compose("a", [])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("world.height=30", "world.height: is 30, allowed: a positive multiple of 16 pixels"),
        ("world.name=films", "world.name: is 'films', allowed: one of symbols, open"),
        ("world.name=digits", "world.name: is 'digits', allowed: one of symbols, open"),
        ("teacher.released=data/released/none", "teacher.released: is 'data/released/none', allowed: the folder"),
        ("prompts.world=symbols", "prompts.world: is 'symbols', allowed: null where world.name is open"),
        (
            "distill.gate.min_all_attributes=0.5",
            "distill.gate.min_all_attributes: is 0.5, allowed: null: no judge scores clips",
        ),
        ("text.placement=disk", "text.placement: is 'disk', allowed: one of cpu, gpu, offload"),
        ("compute.precision=float16", "compute.precision: is 'float16', allowed: one of float32, bfloat16"),
        ("compute.micro_batch=0", "compute.micro_batch: is 0, allowed: null or an integer in [1, 65536]"),
    ],
)
def test_parameters_that_an_open_world_cannot_have(monkeypatch: pytest.MonkeyPatch, override: str, message: str):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FilmstillError) as caught:
        compose("wan-mini", [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["teacher.real_score=data", "world.width=48"])
def test_the_embedded_world_takes_no_other_score_and_no_other_size(monkeypatch: pytest.MonkeyPatch, override: str):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FilmstillError, match=override.partition("=")[0]):
        compose("embedded", [override])


def test_the_whole_profile_says_what_its_values_are():
    """params/wan-1.3b.yaml, composed, has the values of the papers and of the released files."""
    wan = compose("wan-1.3b", [])
    assert wan.world.latent_shape(wan.model.in_channels) == (21, 16, 60, 104)
    assert wan.schedule.shift == 5 and wan.student.denoising_steps == 4 and wan.student.block_frames == 3
    assert (wan.distill.lr, wan.distill.critic_lr, wan.distill.beta1, wan.distill.beta2) == (2e-6, 4e-7, 0, 0.999)
    assert wan.distill.guidance_scale == 3 + 1  # upstream's convention is cond + 3 (cond - uncond)
    assert wan.distill.steps * wan.distill.critic_updates == 600  # upstream's iterations
    assert wan.distill.ema_start * wan.distill.critic_updates == 200
    large = compose("wan-14b-teacher", [])
    assert large.teacher.real_score.endswith("Wan2.1-T2V-14B") and large.model == wan.model
    long = compose("wan-1.3b-long", [])
    assert (long.student.window_frames, long.student.sink_frames) == (12, 3) and long.distill.carry_on
    assert long.distill.rollout_frames == 11 * long.world.frames and long.teacher == large.teacher
    assert long.distill.steps * long.distill.critic_updates == 700 + 3000  # LongLive's iterations
    # sample_neg_prompt of Wan2.1's wan/configs/shared_config.py
    digest = hashlib.sha256(wan.text.negative.encode()).hexdigest()
    assert digest == "ce96e0324e4b54ce4b6e867f669ca520952e1a34cc116543516b1897f0d3c47e"
