"""The embedded world: one handwritten digit, in one colour, in one periodic motion.

The handwriting is real: scikit-learn's `load_digits`, 1,797 samples by 13 writers. Every fifth sample is reserved for
the judge. All motions are periodic, so a stream has no end; they start at
one phase unless world.random_phase is true.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.worlds.grammar import COLOURS, MOTIONS, Attributes
from filmstill.worlds.sentences import sentence

SIZE = 32  # height and width in pixels
DIGIT_SIZE = 16  # height and width of the enlarged digit
RGB = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.15, 0.25, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "magenta": (0.95, 0.1, 0.9),
    "cyan": (0.1, 0.9, 0.95),
}
JUDGE_EVERY = 5  # handwriting sample i belongs to the judge when i % 5 == 4


@dataclass(frozen=True)
class Clips:
    """Drawn clips: `video` [B, F, 3, 32, 32] in [0, 1], their prompts and attributes."""

    video: Tensor
    prompts: list[str]
    attributes: list[Attributes]


@cache
def handwriting(for_judge: bool) -> tuple[Tensor, Tensor]:
    """(images [N, 8, 8] in [0, 1], digits [N]) of the judge's samples or of all others."""
    from sklearn.datasets import load_digits  # here: takes a second to import

    data = load_digits()
    judges = torch.arange(len(data.target)) % JUDGE_EVERY == JUDGE_EVERY - 1
    keep = judges if for_judge else ~judges
    return torch.tensor(data.images, dtype=torch.float32)[keep] / 16, torch.tensor(data.target)[keep]


def path(motion: str, frames: Tensor, world: World) -> Tensor:
    """The digit's centre at `frames` [F], in pixels from the picture's centre, x to the right and y down: [F, 2]."""
    angle = frames.double() * (2 * math.pi / world.period)
    sine, cosine = angle.sin(), angle.cos()
    zero = torch.zeros_like(angle)
    xy = {
        "sways": (sine, zero),
        "bobs": (zero, sine),
        "clockwise": (sine, -cosine),  # y points down: from the top to the right
        "anticlockwise": (-sine, -cosine),
    }[motion]
    return world.amplitude * torch.stack(xy, dim=-1)


def render(images: Tensor, attributes: list[Attributes], first_frames: Tensor, frames: int, world: World) -> Tensor:
    """Render digits [B, 8, 8] as clips [B, frames, 3, 32, 32] in [0, 1], starting at frame `first_frames` [B]."""
    large = F.interpolate(images[:, None], size=(DIGIT_SIZE, DIGIT_SIZE), mode="bilinear", align_corners=False)
    margin = (SIZE - DIGIT_SIZE) // 2
    canvas = F.pad(large, (margin,) * 4)  # [B, 1, 32, 32], the digit in the middle
    steps = torch.arange(frames)
    starts = zip(attributes, first_frames, strict=True)
    offsets = torch.stack([path(shown.motion, first + steps, world) for shown, first in starts])
    shift = torch.zeros(len(attributes) * frames, 2, 3)
    shift[:, 0, 0] = shift[:, 1, 1] = 1
    shift[:, :, 2] = -offsets.flatten(0, 1).float() * (2 / SIZE)  # minus: the grid says where to read
    grid = F.affine_grid(shift, [len(shift), 1, SIZE, SIZE], align_corners=False)
    moved = F.grid_sample(canvas.repeat_interleave(frames, 0), grid, mode="bilinear", align_corners=False)
    colours = torch.tensor([RGB[a.colour] for a in attributes])
    return moved.view(-1, frames, 1, SIZE, SIZE) * colours[:, None, :, None, None]


def draw(world: World, seed: int, purpose: str, step: int, samples: list[int] | range) -> Clips:
    """Draw one clip per sample index; (seed, purpose, step, sample) address its digit, look, motion and sentence."""
    attributes, prompts, images, firsts = [], [], [], []
    for sample in samples:
        dice = randomness.generator(seed, purpose, step, sample)
        shown = Attributes(_pick(10, dice), COLOURS[_pick(len(COLOURS), dice)], MOTIONS[_pick(len(MOTIONS), dice)])
        attributes.append(shown)
        prompts.append(sentence(shown, dice))
        images.append(_written(shown.digit, dice))
        firsts.append(_pick(world.period, dice) if world.random_phase else 0)
    video = render(torch.stack(images), attributes, torch.tensor(firsts), world.frames, world)
    return Clips(video, prompts, attributes)


def real_clips(attributes: list[Attributes], world: World, frames: int, seed: int, seeds: list[int]) -> Tensor:
    """Clips that a perfect model might generate, [B, frames, 3, 32, 32] in [0, 1].

    The handwriting is addressed by (seed, seeds[i], attributes[i]); handwriting of the judge is not used.
    """
    dice = [
        randomness.generator(seed, "real", clip_seed, a.digit, a.colour, a.motion)
        for a, clip_seed in zip(attributes, seeds, strict=True)
    ]
    images = torch.stack([_written(a.digit, d) for a, d in zip(attributes, dice, strict=True)])
    return render(images, attributes, torch.zeros(len(attributes), dtype=torch.long), frames, world)


def _pick(high: int, dice: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=dice))


def _written(digit: int, dice: torch.Generator) -> Tensor:
    """A random handwriting sample [8, 8] of the digit."""
    images, digits = handwriting(for_judge=False)
    candidates = (digits == digit).nonzero().flatten()
    return images[candidates[_pick(len(candidates), dice)]]
