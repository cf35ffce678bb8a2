"""What a teacher of a symbols world lacks: its guess of a clip from noise, beside the best one there is.

    PYTHONPATH=src python tests/helpers/posterior.py [data/released/symbols-natural]

A prompt names everything but the phase, so the best guess of x0 from x_t, the posterior mean, is a sum over the
period's clips, weighted by their likelihood; "±1" is that of each frame from itself and its two neighbours. Errors are
mean squared ones of x0.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstill.diffusion.schedule import TIMESTEPS, add_noise, velocity_to_x0
from filmstill.formats.release import COMMITTED
from filmstill.formats.symbols_release import Symbols, read_symbols
from filmstill.models.codec import DctCodec
from filmstill.params.model import Model
from filmstill.params.schedule import Schedule
from filmstill.params.teacher import Teacher
from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.runtime.files import read_json
from filmstill.worlds.symbols import draw, render

CLIPS = 96
SIGMAS, REACHES = (1.0, 0.97, 0.95, 0.93, 0.9, 0.8, 0.5), (0, 1, 2, 3)
GIVEN, GIVEN_SIGMAS = (1, 2, 6, 11), (1.0, 0.95, 0.9)


@dataclass(frozen=True)
class Clips:
    """Clips x0 [B, F, C, H, W] with noise of the same shape and their prompts.

    phases: the same clips begun at each of the P frames of the period, latents of a frame flattened: [B, P, F, D].
    """

    x0: Tensor
    noise: Tensor
    phases: Tensor
    prompts: list[str]


def drawn(codec: DctCodec, world: World, count: int) -> Clips:
    """The first `count` clips of the prompts that a release is scored with."""
    clips = draw(world, 0, "pretrain/score", 0, range(count))
    x0 = codec.encode(clips.video)
    phases = [codec.encode(render(clips.attributes, world.frames, world, first)) for first in range(world.period)]
    noise = randomness.normal(tuple(x0.shape[1:]), 0, "posterior/noise", 0, range(count))
    return Clips(x0, noise, torch.stack(phases, dim=1).flatten(3), clips.prompts)


def best_guess(clips: Clips, sigma: float, reach: int) -> Tensor:
    """Posterior mean of x0 [B, F, D]; each frame's from the frames at most `reach` before and after it."""
    xt = ((1 - sigma) * clips.x0 + sigma * clips.noise).flatten(2)
    likelihood = -(xt[:, None] - (1 - sigma) * clips.phases).square().sum(-1) / (2 * sigma**2)  # [B, P, F]
    frames = torch.arange(xt.shape[1])
    seen = ((frames[:, None] - frames).abs() <= reach).float()
    return torch.einsum("bpf,bpfd->bfd", (likelihood @ seen).softmax(dim=1), clips.phases)


def networks_guess(teacher: Symbols, clips: Clips, sigma: Tensor) -> Tensor:
    """The network's x0 [B, F, C, H, W] at sigma [B, F]."""
    xt, network = add_noise(clips.x0, clips.noise, sigma), teacher.network
    velocity = network(xt, sigma * TIMESTEPS, network.read_text(teacher.encoder.encode(clips.prompts)))
    return velocity_to_x0(velocity, xt, sigma)


def row(cells: Iterable[object]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(f"{each:.3f}" if isinstance(each, float) else str(each) for each in cells) + " |"


@torch.no_grad()
def main(folder: Path) -> None:
    """Print both tables as Markdown."""
    record = read_json(folder / "release.json")
    world, schedule = World(**record["world"]), Schedule(**record["schedule"])
    teacher = read_symbols(Teacher(released=str(folder)), Model(), schedule, world)
    clips, frames = drawn(teacher.codec, world, CLIPS), world.frames
    print(row(["sigma", "best", *(f"best from ±{reach}" for reach in REACHES), "network"]))
    for sigma in SIGMAS:
        best = [best_guess(clips, sigma, reach) for reach in (frames, *REACHES)]
        errors = [(guess - clips.x0.flatten(2)).square().mean().item() for guess in best]
        guess = networks_guess(teacher, clips, torch.full((CLIPS, frames), sigma))
        print(row([str(sigma), *errors, (guess - clips.x0).square().mean().item()]))
    print(row(["sigma of the others", *(f"next after {given} clean" for given in GIVEN)]))
    for sigma in GIVEN_SIGMAS:
        errors = []
        for given in GIVEN:
            levels = torch.full((CLIPS, frames), sigma)
            levels[:, :given] = 0
            following = networks_guess(teacher, clips, levels)[:, given]
            errors.append((following - clips.x0[:, given]).square().mean().item())
        print(row([str(sigma), *errors]))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED)
