"""Golden 04c: DMD gradient and loss equal those of the released code.

The released critic's weights are not stored, so its stored predictions are used. Two released conventions are adapted
here only: guidance scale s is our weight s + 1 (defect 14), and the scores convert to x0 on a grid with another shift
than the loss's (defect 9).
"""

import pytest
import torch
from torch import Tensor

from filmstill.diffusion.schedule import TIMESTEPS, FlowSchedule, add_noise, velocity_to_x0, x0_to_velocity
from filmstill.objectives.dmd import SIGMA_RANGE, Draw, Objective, dmd_gradient, dmd_loss
from goldens import assert_close, facts, golden, looked_up, tiny

FORWARD, LOSS, SCHEDULE = 2e-5, 2e-4, 1e-6
DMD, CASES = golden("04c_dmd"), facts("04c_dmd")["cases"]
GRADIENT_CASES = [case for case in CASES if case.startswith("kl")]
LOSS_CASES = [case for case in CASES if case.startswith("loss")]
LOSS_SHIFT, SCORE_SHIFT = 5, 8  # shifts of the tables in which the released loss and scores look up sigma
RELEASED_SCALE = 3.0


def of(case: str) -> dict[str, Tensor]:
    """The golden tensors of one case by name."""
    return {name.removeprefix(f"{case}."): value for name, value in DMD.items() if name.startswith(f"{case}.")}


def guided_x0(g: dict[str, Tensor], score: str, scale: float) -> Tensor:
    """The released guidance cond + s*(cond - uncond), written with our weight (defect 14)."""
    cond = g[f"pred_{score}_cond"]
    uncond = g.get(f"pred_{score}_uncond", cond)  # none is stored for scale 0
    return uncond + (scale + 1) * (cond - uncond)


@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_gradient_between_the_stored_predictions(case):
    g, settings = of(case), CASES[case]
    fake = guided_x0(g, "fake", settings["fake_guidance_scale"])
    real = guided_x0(g, "real", settings["real_guidance_scale"])
    gradient = dmd_gradient(g["estimated_clean"], fake, real, normalise=settings["normalization"])
    assert_close(gradient, g["grad"], LOSS)
    assert_close(gradient.abs().mean(), g["gradient_norm_log"], LOSS)


@pytest.mark.parametrize("case", GRADIENT_CASES)
@torch.no_grad()
def test_teachers_stored_predictions(case):
    """Our velocity, converted to x0 at the released sigma (defect 9), equals the stored x0."""
    g, model = of(case), tiny("bidir")
    t = g["timestep"][:, 0]
    for branch in ("cond", "uncond"):
        velocity = model(g["noisy"], t, model.read_text(DMD[branch][: len(t)]))
        x0 = velocity_to_x0(velocity, g["noisy"], looked_up(t, SCORE_SHIFT))
        assert_close(x0, g[f"pred_real_{branch}"], FORWARD)


@pytest.mark.parametrize("case", LOSS_CASES)
def test_loss_and_latent_gradient_of_the_stored_predictions(case):
    g = of(case)
    gradient = dmd_gradient(g["latent"], g["pred_fake_cond"], guided_x0(g, "real", RELEASED_SCALE))
    latent = g["latent"].clone().requires_grad_()
    mask = g.get("gradient_mask")
    assert (mask is not None) == CASES[case]["masked"]
    loss = dmd_loss(latent, gradient, mask)
    loss.backward()
    assert loss.dtype == torch.float64
    assert_close(loss, g["loss"], LOSS)
    assert_close(latent.grad, g["grad_latent"], LOSS)
    if mask is not None:
        assert not mask.all()
        assert torch.equal(latent.grad[~mask], torch.zeros_like(latent.grad[~mask]))


@pytest.mark.parametrize("case", LOSS_CASES)
def test_score_times_are_warped_and_clamped_as_released(case):
    g = of(case)
    sigma = FlowSchedule(CASES[case]["timestep_shift"]).warp(g["t_raw"][:, 0] / TIMESTEPS).clamp(*SIGMA_RANGE)
    assert_close(sigma * TIMESTEPS, g["timestep"][:, 0], SCHEDULE)
    # The released loss adds noise at the looked-up sigma of shift 5 for any warp (defect 8).
    assert_close(
        add_noise(g["latent"], g["noise"], looked_up(g["timestep"][:, 0], LOSS_SHIFT)), g["noisy_latent"], SCHEDULE
    )


class StoredCritic:
    """Critic whose velocity leads to the stored x0."""

    def __init__(self, x0: Tensor) -> None:
        self.x0 = x0

    def read_text(self, text: Tensor) -> list:
        return []

    def __call__(self, xt: Tensor, t: Tensor, text: list) -> Tensor:
        return x0_to_velocity(self.x0, xt, t / TIMESTEPS)


class ReleasedTeacher:
    """The tiny teacher with its velocity scaled so that x0 is the one on the scores' grid (defect 9)."""

    def __init__(self) -> None:
        self.model = tiny("bidir")

    def read_text(self, text: Tensor) -> list:
        return self.model.read_text(text)

    def __call__(self, xt: Tensor, t: Tensor, text: list) -> Tensor:
        ratio = looked_up(t, SCORE_SHIFT).double() / (t / TIMESTEPS)
        return self.model(xt, t, text) * ratio.view(-1, 1, 1, 1, 1).to(xt.dtype)


@pytest.mark.parametrize("case", LOSS_CASES)
def test_generator_loss_end_to_end(case):
    """`Objective.generator_loss` from the raw draw to the latents' gradient."""
    g = of(case)
    objective = Objective(
        teacher=ReleasedTeacher(),
        critic=StoredCritic(g["pred_fake_cond"]),
        schedule=FlowSchedule(CASES[case]["timestep_shift"]),
        guidance_scale=RELEASED_SCALE + 1,
        no_text=DMD["uncond"][:1],
    )
    latent = g["latent"].clone().requires_grad_()
    u = g["t_raw"][:, 0].double() / TIMESTEPS
    sigma = g["timestep"][:, 0].double() / TIMESTEPS
    on_grid = torch.allclose(sigma, looked_up(g["timestep"][:, 0], LOSS_SHIFT).double(), atol=1e-6, rtol=0)
    assert on_grid == (case not in ("loss_clamp_low", "loss_clamp_high", "loss_shift1"))
    # Off the grid the released code adds noise at another sigma (defect 8): this noise gives its latents at our sigma.
    noise = g["noise"] if on_grid else x0_to_noise(g["latent"], g["noisy_latent"], sigma)
    mask = g.get("gradient_mask", torch.ones_like(latent, dtype=torch.bool))
    counted = mask[0, :, 0, 0, 0]
    assert torch.equal(mask, counted[:, None, None, None].expand_as(mask)), "whole frames"
    loss = objective.generator_loss(latent, DMD["cond"][: len(u)], Draw(u, noise), counted)
    loss.backward()
    assert_close(loss, g["loss"], LOSS)
    assert_close(latent.grad, g["grad_latent"], LOSS)


def x0_to_noise(x0: Tensor, xt: Tensor, sigma: Tensor) -> Tensor:
    """The noise for which x0 gives xt at sigma [B]."""
    s = sigma.view(-1, 1, 1, 1, 1)
    return ((xt - (1 - s) * x0) / s).float()


@pytest.mark.parametrize("first", [0, 1])
def test_critic_loss_is_flow_matching_on_the_generated_video(first: int):
    """The critic's text is the prompt, its target is noise - video, at the warped and clamped time, on the frames
    that count: from `first` on."""
    g, seen = of("loss"), {}
    error = torch.randn(g["latent"].shape, generator=torch.Generator().manual_seed(0))

    class Critic:
        def read_text(self, text: Tensor) -> Tensor:
            return text

        def __call__(self, xt: Tensor, t: Tensor, text: Tensor) -> Tensor:
            seen.update(xt=xt, t=t, text=text)
            return g["noise"] - g["latent"] + error

    objective = Objective(ReleasedTeacher(), Critic(), FlowSchedule(5), 4.0, DMD["uncond"][:1])
    draw, counted = Draw(g["t_raw"][:, 0] / TIMESTEPS, g["noise"]), torch.arange(g["latent"].shape[1]) >= first
    loss = objective.critic_loss(g["latent"], DMD["cond"][:1], draw, counted)
    assert_close(loss, error[:, first:].square().mean(), LOSS)
    assert_close(seen["xt"], g["noisy_latent"], FORWARD)
    assert_close(seen["t"], g["timestep"][:, 0], SCHEDULE)
    assert torch.equal(seen["text"], DMD["cond"][:1])
