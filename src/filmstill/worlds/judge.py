"""The judge of the digits world's clips: digit, colour and motion of a clip, each with a confidence.

The judge learns the fifth of the handwriting that no model trains on, rendered like clips, blurred by the codec and
elastically deformed; a support vector machine classifies it by the directions of its strokes. Every answer may be None:
an empty, noisy or frozen clip satisfies no prompt. Confidences are continuous, one per candidate, and averaged over
frames, so a clip that changes half-way gets half the confidence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.models.codec import DctCodec
from filmstill.params.world import World
from filmstill.runtime import randomness
from filmstill.worlds.digits import DIGIT_SIZE, RGB, SIZE, handwriting, path, render
from filmstill.worlds.grammar import COLOURS, MOTIONS, Attributes

MIN_CONFIDENCE = (0.3, 0.5, 0.5)  # in digit, colour and motion; below it the answer is None
MAX_OFFSET = 3.0  # pixels that a whole track may be displaced by
MIN_INK = 2.0  # summed luma below which a frame is empty; the thinnest handwriting has over 15
SHARPNESS = 3.0  # factor before the softmax over votes: over 0.9 for a clear digit, 0.5 for a tie of two
POSITIONS = 2  # positions between pixels at which the judge learns each of its samples
VARIANTS = 8  # elastic deformations of each of them that it learns, too
CHUNK = 256  # crops whose strokes fit into a core's cache


@dataclass(frozen=True)
class Answer:
    """The judge's answer for one clip; None for an attribute that it does not recognise."""

    digit: int | None
    colour: str | None
    motion: str | None


@dataclass(frozen=True)
class Judgement:
    """Confidences in [0, 1], in the grammar's order: `digits` [B, 10], `colours` [B, 6], `motions` [B, 4]."""

    digits: Tensor
    colours: Tensor
    motions: Tensor

    def answers(self) -> list[Answer]:
        """The most confident answer for each clip, None where that confidence is below MIN_CONFIDENCE."""
        best = [table.max(dim=1) for table in (self.digits, self.colours, self.motions)]
        named = [torch.where(b.values >= least, b.indices, -1) for b, least in zip(best, MIN_CONFIDENCE, strict=True)]
        return [
            Answer(d if d >= 0 else None, COLOURS[c] if c >= 0 else None, MOTIONS[m] if m >= 0 else None)
            for d, c, m in torch.stack(named, dim=1).tolist()
        ]

    def confidence(self, attributes: list[Attributes]) -> Tensor:
        """Confidence in [0, 1] that each clip shows its attributes: [B, 3] (digit, colour, motion)."""
        index = torch.tensor([[a.digit, COLOURS.index(a.colour), MOTIONS.index(a.motion)] for a in attributes])
        tables = (self.digits, self.colours, self.motions)
        return torch.stack([t.gather(1, i[:, None])[:, 0] for t, i in zip(tables, index.T, strict=True)], dim=1)


@dataclass(frozen=True)
class Track:
    """The digit of B clips in every frame.

    centres: [B, F, 2] its centroid (x, y) in pixels from the picture's centre. crops: [B, F, 16, 16] luma around the
    centroid, of unit norm. colours: [B, F, 3] its mean RGB above the background. ink: [B, F] its summed luma.
    """

    centres: Tensor
    crops: Tensor
    colours: Tensor
    ink: Tensor


def judge(video: Tensor, world: World, first_frame: int = 0) -> list[Answer]:
    """Answers for clips [B, F, 3, 32, 32] in [0, 1] whose frame 0 is frame `first_frame` of their motion."""
    return measure(video, world, first_frame).answers()


def all_right(video: Tensor, attributes: list[Attributes], world: World, first_frame: int = 0) -> Tensor:
    """Whether each clip shows its attributes: bools [B, 3] (digit, colour, motion)."""
    pairs = zip(judge(video, world, first_frame), attributes, strict=True)
    return torch.tensor([[s.digit == a.digit, s.colour == a.colour, s.motion == a.motion] for s, a in pairs])


def measure(video: Tensor, world: World, first_frame: int = 0) -> Judgement:
    """The confidences behind the answers of `judge`. A pixel that is not a number counts as black."""
    return assess(follow(video), world, first_frame)


def assess(track: Track, world: World, first_frame: int = 0) -> Judgement:
    """`measure` for clips that `follow` has tracked."""
    shown = track.ink >= MIN_INK  # [B, F]
    digits = (_digit_confidence(track.crops) * shown[..., None]).mean(dim=1)
    colours = (_colour_confidence(track.colours) * shown[..., None]).mean(dim=1)
    motions = _motion_confidence(track.centres, world, first_frame) * shown.float().mean(dim=1, keepdim=True)
    return Judgement(digits, colours, motions)


def follow(video: Tensor) -> Track:
    """Track the digit through clips [B, F, 3, 32, 32]: all that is brighter than the median of its frame."""
    pixels = video.nan_to_num(0, 0, 0).clamp(0, 1)
    background = pixels.flatten(-2).median(dim=-1).values  # [B, F, 3]
    above = pixels - background[..., None, None]
    luma = above.sum(dim=2)  # the sum of the channels is what the codec preserves best
    strongest = luma.flatten(-2).max(dim=-1).values[..., None, None]
    ink = (luma - 0.2 * strongest).clamp(min=0)  # the codec rings by up to a fifth around an edge
    total = ink.sum(dim=(-2, -1))
    share = ink / total.clamp(min=1e-6)[..., None, None]
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    centres = torch.stack([(share.sum(dim=-2) * axis).sum(-1), (share.sum(dim=-1) * axis).sum(-1)], dim=-1)
    colours = torch.einsum("bfchw,bfhw->bfc", above, share)
    crops = crop(ink[:, :, None], centres)[:, :, 0]
    return Track(centres, _unit(crops.flatten(0, 1)).view(crops.shape), colours, total)


def crop(video: Tensor, centres: Tensor) -> Tensor:
    """Cut the 16x16 pixels around `centres` [B, F, 2] out of [B, F, C, 32, 32]: [B, F, C, 16, 16]."""
    batch, frames, channels = video.shape[:3]
    where = torch.zeros(batch * frames, 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = DIGIT_SIZE / SIZE
    where[:, :, 2] = centres.flatten(0, 1) * (2 / SIZE)
    grid = F.affine_grid(where, [batch * frames, 1, DIGIT_SIZE, DIGIT_SIZE], align_corners=False)
    cut = F.grid_sample(video.flatten(0, 1), grid, mode="bilinear", align_corners=False)
    return cut.view(batch, frames, channels, DIGIT_SIZE, DIGIT_SIZE)


def _unit(pictures: Tensor) -> Tensor:
    """Scale each of the pictures [N, ...] to unit norm; an empty one stays empty."""
    return F.normalize(pictures.flatten(1), dim=1, eps=1e-6).view(pictures.shape)


def _colour_confidence(colours: Tensor) -> Tensor:
    """Confidence in each colour for mean RGB [..., 3]: [..., 6]; the remainder to 1 is the confidence in none."""
    known = F.normalize(torch.tensor([RGB[name] for name in COLOURS]), dim=1)
    distance = (F.normalize(colours, dim=-1, eps=1e-6)[..., None, :] - known).norm(dim=-1)
    likely = torch.exp(-0.5 * (distance / 0.1) ** 2)  # the codec moves colours by 0.1; two are 0.5 apart
    return likely / (likely.sum(dim=-1, keepdim=True) + torch.exp(torch.tensor(-0.5 * (0.3 / 0.1) ** 2)))


def _motion_confidence(centres: Tensor, world: World, first_frame: int) -> Tensor:
    """Share of the variance of tracks [B, F, 2] that each motion explains, 0 for a track that does not move: [B, 4].

    A track may be displaced by MAX_OFFSET pixels. If the world's phase is random, the best fitting phase counts.
    """
    frames = torch.arange(centres.shape[1])
    firsts = range(world.period) if world.random_phase else [first_frame]
    paths = torch.stack([torch.stack([path(m, first + frames, world) for m in MOTIONS]) for first in firsts]).float()
    apart = centres[:, None, None] - paths  # [B, phases, 4, F, 2]
    apart = apart - apart.mean(dim=-2, keepdim=True).clamp(-MAX_OFFSET, MAX_OFFSET)
    swing = (paths - paths.mean(dim=-2, keepdim=True)).square().sum(dim=(-2, -1))
    explained = 1 - apart.square().sum(dim=(-2, -1)) / swing.clamp(min=1e-6)
    return explained.clamp(min=0).amax(dim=1)


def _digit_confidence(crops: Tensor) -> Tensor:
    """Confidence in each digit for crops [B, F, 16, 16]: [B, F, 10]; lower for crops unlike any handwriting."""
    flat = crops.flatten(0, 1)
    votes = torch.from_numpy(_digit_classifier()(_strokes(flat).numpy())).float()
    alike = (flat.flatten(1) @ samples().flatten(1).T).amax(dim=1, keepdim=True)
    handwritten = ((alike - 0.75) / 0.1).clamp(0, 1)  # cosine to the nearest: decoded digits above 0.9, noise up to 0.8
    return ((SHARPNESS * votes).softmax(dim=1) * handwritten).view(*crops.shape[:2], 10)


@cache
def samples() -> Tensor:
    """The judge's handwriting as crops of decoded clips, at POSITIONS positions between pixels: [N, 16, 16]."""
    images, _ = handwriting(for_judge=True)
    shown = [Attributes(0, COLOURS[i % len(COLOURS)], "clockwise") for i in range(len(images))]
    video = render(images, shown, torch.zeros(len(images), dtype=torch.long), POSITIONS, World(period=4, amplitude=2.3))
    codec = DctCodec(torch.zeros(16), torch.ones(()))  # the codec's blur does not depend on its normalisation
    return follow(codec.decode(codec.encode(video))).crops.flatten(0, 1)


@cache
def _digit_classifier() -> Callable[[np.ndarray], np.ndarray]:
    """Function from strokes [N, 432] to votes [N, 10] for each digit, fitted to `samples` and their variants."""
    from sklearn.svm import SVC  # here: takes a second to import

    dice = randomness.generator(0, "judge")
    learned = torch.cat([samples(), *(_deformed(samples(), dice) for _ in range(VARIANTS))])
    digits = handwriting(for_judge=True)[1].repeat_interleave(POSITIONS).repeat(1 + VARIANTS)
    return SVC(C=10.0, gamma=4.0).fit(_strokes(learned).numpy(), digits.numpy()).decision_function


def _deformed(crops: Tensor, dice: torch.Generator) -> Tensor:
    """Slightly rotate, shear, scale and elastically deform crops [N, 16, 16]: 359 samples do not cover handwriting."""
    count = len(crops)
    amounts = torch.rand(4, count, generator=dice) * 2 - 1
    turn, shear, wide, high = amounts * torch.tensor([0.15, 0.1, 0.1, 0.1])[:, None]
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 0, 1] = (1 + wide) * turn.cos(), shear - turn.sin()
    affine[:, 1, 0], affine[:, 1, 1] = turn.sin(), (1 + high) * turn.cos()
    grid = F.affine_grid(affine, [count, 1, DIGIT_SIZE, DIGIT_SIZE], align_corners=False)
    shifts = 0.1 * torch.randn(count, 2, 3, 3, generator=dice)  # of nine control points, in half widths
    shifts = shifts - shifts.mean(dim=(2, 3), keepdim=True)  # keeps crops centred
    field = F.interpolate(shifts, size=(DIGIT_SIZE, DIGIT_SIZE), mode="bicubic", align_corners=True)
    return _unit(F.grid_sample(crops[:, None], grid + field.permute(0, 2, 3, 1), align_corners=False)[:, 0])


def _strokes(crops: Tensor) -> Tensor:
    """Positive gradients of crops [N, 16, 16] in twelve directions, averaged on a 6x6 grid: [N, 432], unit norm."""
    return torch.cat([_strokes_of_chunk(chunk) for chunk in crops.split(CHUNK)])


def _strokes_of_chunk(crops: Tensor) -> Tensor:
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    smooth = F.conv2d(F.pad(crops[:, None], (2,) * 4), torch.outer(binomial, binomial)[None, None])  # [N, 1, 18, 18]
    right = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    angle = (torch.arange(12) * (math.pi / 6))[:, None, None]
    rises = (right * angle.cos() + down * angle.sin()).clamp(min=0)  # [N, 12, 16, 16]
    return F.normalize(F.adaptive_avg_pool2d(rises, 6).flatten(1), dim=1, eps=1e-6)
