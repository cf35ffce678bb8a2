"""Plans against counted runs: state of training and files on disk; and the remedies of a plan."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from counting import H100, by_precision, counted
from filmstill.diffusion.sample import sample
from filmstill.diffusion.schedule import FlowSchedule
from filmstill.errors import FilmstillError
from filmstill.models.dit import VideoDiT
from filmstill.models.load import DTYPES
from filmstill.models.text import HashedWords
from filmstill.models.weights import config_of, save_model
from filmstill.objectives.dmd import Objective
from filmstill.params.profile import compose, names
from filmstill.plan import memory
from filmstill.plan.machine import Machine
from filmstill.plan.remedies import Request, apply, find_remedy
from filmstill.plan.report import PARTS, duration, show_plan
from filmstill.plan.run import Run
from filmstill.plan.stages import StagePlan, ode_pairs, plan
from filmstill.runtime.gpus import GPUS
from filmstill.runtime.tensor_files import save_tensors
from filmstill.training.distillation import Distillation
from filmstill.training.loss_windows import LossWindows
from filmstill.training.optimizers import muon_and_adamw
from filmstill.training.student_clips import StudentClips
from goldens import TINY, tiny
from rollouts import rollout_config

# Training, on disk and in memory

CLIPS = LossWindows()  # every rollout is a clip


def one_step(
    activation_checkpointing: bool, windows: LossWindows = CLIPS, guidance_scale: float = 3.0
) -> tuple[Run, Distillation]:
    """Self-Forcing with the smoke profile's network, two clips per update and a real score of the same size."""
    overrides = [
        "distill.batch=2",
        "distill.critic_updates=1",
        f"distill.guidance_scale={guidance_scale}",
        "distill.rollout_frames=null",
        "ode_init.clips=1",
        "student.window_frames=null",
        "world.frames=6",
        f"compute.activation_checkpointing={str(activation_checkpointing).lower()}",
    ]
    run = Run(compose("smoke", overrides), H100)
    torch.manual_seed(0)
    generator, critic, score = (VideoDiT(run.config) for _ in range(3))
    generator.activation_checkpointing = critic.activation_checkpointing = activation_checkpointing
    encoder = HashedWords(run.params.model.text_len, run.config.text_dim)
    objective = Objective(score.requires_grad_(False), critic, FlowSchedule(3), guidance_scale, encoder.encode([""]))
    steps = rollout_config(FlowSchedule(3), 4, run.attention, 0.0)
    prompts, micro_batches = ["a red star bobs", "a blue sun"], [range(1), range(1, 2)]
    batch = run.params.distill.batch
    clips = StudentClips(generator, steps, encoder, prompts, run.latent_shape(), 0, batch, windows)
    return run, Distillation(run.params.distill, objective, clips, micro_batches)


@pytest.mark.parametrize("windows", [CLIPS, LossWindows(range(6, 7), 0.0)], ids=["clip", "later window"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_operations_of_a_training_step_are_those_counted(activation_checkpointing, guidance_scale, windows):
    _, training = one_step(activation_checkpointing, windows, guidance_scale)
    assert training.cost().flops(0) == counted(lambda: training.step(0))


def test_time_counts_every_window_by_its_share_and_memory_the_longest():
    """Windows at 0, 12, 24: the plan is the mean of the plans with one window each, and the memory of the last."""
    base = ["world.period=12", "student.window_frames=null", "ode_init.clips=1"]  # all frames before stay in the cache

    def planned(frames: int | None, first_share: float) -> Run:
        rollouts = [f"distill.rollout_frames={frames or 'null'}", f"distill.first_window_share={first_share}"]
        return Run(compose("smoke", [*base, *rollouts]), H100)

    short, long = (stages(planned(frames, 0.6)) for frames in (None, 36))
    assert planned(36, 0.6).loss_windows.shares() == pytest.approx({0: 0.6, 12: 0.2, 24: 0.2})
    one = {start: stages(planned(12 + start, 0.0))["distill"].flops for start in (12, 24)}
    later = {12: one[12], 24: 2 * one[24] - one[12]}  # the plan of 36 frames has both later windows, equally often
    expected = 0.6 * short["distill"].flops + 0.2 * (later[12] + later[24])
    assert long["distill"].flops == pytest.approx(expected)
    peaks = [stage["distill"].phases["generator update, backward"] for stage in (short, long)]
    assert peaks[1].kv_cache > peaks[0].kv_cache and peaks[1].activations > peaks[0].activations
    assert {name for name in short if short[name] != long[name]} == {"distill"}


def test_chained_trajectories_count_as_longer_sequences():
    overrides = ["world.period=12", "student.window_frames=9"]
    one, three = (stages(Run(compose("smoke", [*overrides, f"ode_init.clips={n}"]), H100)) for n in (1, 3))
    assert three["ode_init"].flops > 3 * 0.9 * one["ode_init"].flops
    ratio = three["ode_init"].phases["update"].activations / one["ode_init"].phases["update"].activations
    assert ratio == pytest.approx(3, rel=0.05)
    assert {name for name in one if one[name] != three[name]} == {"ode_init"}


def test_the_state_of_training_is_as_large_as_planned():
    """State between steps, without the optimizers' counters (4 bytes per tensor), and gradients of one network."""
    run, training = one_step(False)
    held: list[int] = []
    networks = (training.generator, training.objective.critic)

    def gradients(*_: object) -> None:
        held.append(sum(p.grad.nbytes for network in networks for p in network.parameters() if p.grad is not None))

    for optimizer in (training.generator_optimizer, training.critic_optimizer):
        optimizer.register_step_pre_hook(gradients)
    training.step(0)
    state = {name: t for name, t in training.state().tensors().items() if not name.endswith("/step")}
    planned = run.trained(2, averaged=True, muon=False)
    assert sum(t.nbytes for t in state.values()) == planned.master + planned.average + planned.optimizer
    assert set(held) == {planned.gradients}


def test_muon_has_one_moment_per_matrix():
    model = tiny("bidir")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept = 0
    for optimizer in muon_and_adamw(model, 1e-3, 1e-3, 0.0).values():
        optimizer.step()
        states = optimizer.state_dict()["state"].values()
        kept += sum(t.nbytes for state in states for name, t in state.items() if name != "step")
    assert kept == memory.optimizer_bytes(TINY, muon=True)


def content(path: Path) -> int:
    """Bytes of a safetensors file without its header."""
    data = path.read_bytes()
    return len(data) - 8 - int.from_bytes(data[:8], "little")


@by_precision
def test_pairs_and_networks_on_disk_are_as_large_as_planned(precision, tmp_path):
    run = Run(compose("smoke", ["ode_pairs.prompts=3", "ode_pairs.shards=1", f"compute.precision={precision}"]), H100)
    params = run.params.ode_pairs
    keep = [params.sampling_steps // params.nodes * node for node in range(params.nodes)]
    noise = torch.zeros(params.prompts, *run.latent_shape())
    latents = sample(lambda xt, sigma: xt, noise, FlowSchedule(3), params.sampling_steps, keep)
    save_tensors(tmp_path / "pairs.safetensors", {"latents": latents.to(DTYPES[precision])})
    assert content(tmp_path / "pairs.safetensors") == ode_pairs(run).artifacts
    _, training = one_step(False)
    save_model(tmp_path / "student.safetensors", training.ema.tensors(), config_of(run.params.model), {})
    training.step(0)
    save_tensors(tmp_path / "step.safetensors", training.state().tensors())
    distilled = stages(run)["distill"]
    assert content(tmp_path / "student.safetensors") == distilled.artifacts
    assert 3 * content(tmp_path / "step.safetensors") == pytest.approx(distilled.checkpoints, rel=0.001)


def test_sharding_divides_the_state_of_training():
    one = Run(compose("wan-1.3b", []), H100)
    for machine, shards in ((Machine("h100-80gb", 64, 8, "full"), 64), (Machine("h100-80gb", 64, 8, "hybrid"), 8)):
        sharded = Run(one.params, machine).trained(2, averaged=True, muon=False)
        whole = one.trained(2, averaged=True, muon=False)
        assert sharded.optimizer == whole.optimizer / shards and sharded.master == whole.master / shards
        assert stages(Run(one.params, machine))["samples"] == stages(one)["samples"]  # nothing is trained there


# Plans


def stages(run: Run) -> dict[str, StagePlan]:
    return {stage.name: stage for stage in plan(run)}


def test_distillation_takes_about_as_long_as_published():
    """Self Forcing (arXiv:2506.08009) reports about 2 hours for 600 iterations, our 120 updates, on 64 H100."""
    machine = Machine("h100-80gb", 64, sharding="full")
    distilled = stages(Run(compose("wan-14b-teacher", []), machine))["distill"]
    hours = machine.seconds(distilled.flops, 64) / 3600
    print(f"planned: {hours:.2f} hours")
    assert 2 / 3 < hours < 2 * 3
    assert distilled.fits(machine)


@pytest.mark.parametrize(
    ("profile", "overrides", "machine", "arguments"),
    [
        (
            "wan-1.3b",
            ["compute.activation_checkpointing=false"],
            Machine("h200-141gb"),
            ["compute.activation_checkpointing=true"],
        ),
        ("wan-1.3b", ["compute.micro_batch=4"], Machine("h200-141gb"), None),
        ("wan-1.3b", ["compute.micro_batch=8"], Machine("h200-141gb"), ["compute.micro_batch=1"]),
        ("wan-14b-teacher", [], Machine("h100-80gb", 8), ["--sharding full"]),
        ("wan-14b-teacher", [], Machine("h100-80gb"), ["--offload"]),
        ("wan-1.3b", [], Machine("a100-40gb"), ["--gpus 4 --sharding full"]),
        (
            "wan-14b-teacher",
            ["compute.activation_checkpointing=false", "compute.micro_batch=2"],
            Machine("h100-80gb", 8),
            ["compute.micro_batch=1", "compute.activation_checkpointing=true", "--sharding full"],
        ),
    ],
)
def test_a_remedy_makes_a_stage_fit(profile, overrides, machine, arguments):
    request = Request.of(profile, overrides, machine)
    before = stages(request.run)["distill"]
    assert before.fits(machine) == (arguments is None)
    if arguments is not None:
        found = find_remedy(request, before)
        assert found is not None and found.fits and [change.argument for change in found.changes] == arguments
        changed = apply(request, found.changes).run
        assert stages(changed)["distill"].fits(changed.machine)


def test_stages_that_train_nothing_have_other_remedies():
    request = Request.of("wan-14b-teacher", ["ode_pairs.batch=8"], Machine("rtx4090-24gb"))
    remedies = {name: find_remedy(request, stages(request.run)[name]) for name in ("ode_pairs", "samples")}
    first = {name: remedy.changes[0].argument for name, remedy in remedies.items()}
    assert first == {"ode_pairs": "ode_pairs.batch=1", "samples": "--offload"}


def show(capsys: pytest.CaptureFixture[str], profile: str, *overrides: str, **machine: Any) -> str:
    settings = {"gpu": "h100-80gb", "gpus": 1, "gpus_per_node": 8, "sharding": None, "offload": False}
    show_plan(profile, list(overrides), **{**settings, "efficiency": 0.4, "as_json": False, **machine})
    return capsys.readouterr().out


@pytest.mark.parametrize("profile", names())
def test_every_profile_has_a_plan(profile, capsys):
    shown = show(capsys, profile, gpu="h200-141gb")
    assert "ode_pairs" in shown and "total" in shown and "Every stage fits." in shown


def test_a_stage_that_does_not_fit_has_a_sentence(capsys):
    shown = show(capsys, "wan-1.3b", gpu="rtx4090-24gb")
    assert "ode_init does not fit: 34.5 GiB of 21.2 (update). With --gpus 4 --sharding full it does" in shown
    shown = show(capsys, "wan-1.3b", "distill.batch=1", gpu="rtx4090-24gb")  # cannot be divided among GPUs
    assert "No change that plan knows makes it fit." in shown and "most of it optimizer state (21.1)" in shown


def test_json_has_the_same_numbers(capsys):
    data = json.loads(show(capsys, "wan-14b-teacher", gpus=64, as_json=True))
    distilled = stages(Run(compose("wan-14b-teacher", []), Machine("h100-80gb", 64, sharding="full")))["distill"]
    shown = data["stages"]["distill"]
    peak = shown["phases"][shown["peak"]]
    assert PARTS.keys() == peak.keys() - {"total"}
    assert (data["machine"]["sharding"], data["makes_it_fit"]) == ("full", {})
    assert shown["flops"] == distilled.flops and peak["total"] == distilled.memory.total


@pytest.mark.parametrize(
    ("overrides", "machine", "message"),
    [
        ([], {"gpu": "h100"}, f"--gpu: is 'h100', allowed: one of {', '.join(GPUS)}"),
        ([], {"gpus": 48}, "ode_init.batch: is 64, allowed: a multiple of --gpus × compute.micro_batch = 48 × 1 = 48"),
        (["compute.micro_batch=null"], {"gpus": 3}, "ode_init.batch: is 64, allowed: a multiple of --gpus (3)"),
        ([], {"gpus": 12, "sharding": "hybrid"}, "--gpus: is 12, allowed: whole nodes"),
        ([], {"efficiency": 40.0}, "--efficiency: is 40.0, allowed: a share in (0, 1]"),
        (["teacher.real_score=data/released/x"], {}, "teacher.real_score: is 'data/released/x', allowed: a folder"),
    ],
)
def test_a_refusal_is_one_line(overrides, machine, message, capsys):
    with pytest.raises(FilmstillError) as raised:
        show(capsys, "wan-1.3b", *overrides, **machine)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_durations_have_two_units_at_most():
    shown = [duration(seconds) for seconds in (34, 59.8, 720, 3570, 4200, 172_000, 273_600)]
    assert shown == ["34 s", "60 s", "12 min", "1 h 0 min", "1 h 10 min", "47 h 47 min", "3 d 4 h"]
