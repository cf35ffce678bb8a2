"""Who judges a clip of the digits world: which digit, which colour, which motion, and how surely.

Notable: the handwriting the judge knows is the fifth no model ever trains on, rendered as clips are,
blurred as the codec blurs and bent as hands bend it, and read by a support vector machine from the
direction of its strokes; every answer can be "nothing" (an empty, noisy or frozen clip passes for no
prompt); confidences are continuous, one number a candidate, pooled over the frames, so a clip that
changes its mind half-way gets half of them.
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

LEAST = (0.3, 0.5, 0.5)  # confidence in digit, colour and motion below which the answer is "nothing"
STRAY = 3.0  # pixels that the whole track may lie off its place
LEAST_INK = 2.0  # summed luma below which a frame is empty; the thinnest handwriting has over 15
HARDNESS = 3.0  # of the softmax over the reader's votes: over 0.9 for a plain digit, 0.5 for a coin toss
PLACES = 2  # between pixels, at which the judge has seen each of its samples
VARIANTS = 8  # elastic variants of each of them that the reader learns from, too
AT_ONCE = 256  # crops whose strokes a core's cache holds


@dataclass(frozen=True)
class Seen:
    """What the judge sees in one clip; None where there is nothing to name."""

    digit: int | None
    colour: str | None
    motion: str | None


@dataclass(frozen=True)
class Judgement:
    """Confidences in [0, 1], in the grammar's order: `digits` [B, 10], `colours` [B, 6], `motions` [B, 4]."""

    digits: Tensor
    colours: Tensor
    motions: Tensor

    def seen(self) -> list[Seen]:
        """The likeliest answer of each clip, None where even that one is below LEAST."""
        best = [table.max(dim=1) for table in (self.digits, self.colours, self.motions)]
        named = [torch.where(b.values >= least, b.indices, -1) for b, least in zip(best, LEAST, strict=True)]
        return [
            Seen(d if d >= 0 else None, COLOURS[c] if c >= 0 else None, MOTIONS[m] if m >= 0 else None)
            for d, c, m in torch.stack(named, dim=1).tolist()
        ]

    def confidence(self, attributes: list[Attributes]) -> Tensor:
        """How surely each clip shows what is asked of it, in [0, 1]: [B, 3] (digit, colour, motion)."""
        index = torch.tensor([[a.digit, COLOURS.index(a.colour), MOTIONS.index(a.motion)] for a in attributes])
        tables = (self.digits, self.colours, self.motions)
        return torch.stack([t.gather(1, i[:, None])[:, 0] for t, i in zip(tables, index.T, strict=True)], dim=1)


@dataclass(frozen=True)
class Track:
    """The digit of B clips in every frame.

    `centres` [B, F, 2] its centroid in pixels from the picture's centre (x, y); `crops` [B, F, 16, 16] its luma
    around that, of unit norm; `colours` [B, F, 3] its mean RGB above the background; `ink` [B, F] its summed luma.
    """

    centres: Tensor
    crops: Tensor
    colours: Tensor
    ink: Tensor


def judge(video: Tensor, world: World, first_frame: int = 0) -> list[Seen]:
    """What clips [B, F, 3, 32, 32] in [0, 1] show; frame 0 of the clips is frame `first_frame` of their motion."""
    return measure(video, world, first_frame).seen()


def all_right(video: Tensor, attributes: list[Attributes], world: World, first_frame: int = 0) -> Tensor:
    """Whether each clip shows what is asked of it: bools [B, 3] (digit, colour, motion)."""
    seen = judge(video, world, first_frame)
    pairs = zip(seen, attributes, strict=True)
    return torch.tensor([[s.digit == a.digit, s.colour == a.colour, s.motion == a.motion] for s, a in pairs])


def measure(video: Tensor, world: World, first_frame: int = 0) -> Judgement:
    """The confidences behind `judge`. A pixel that is not a number counts as black."""
    return assess(follow(video), world, first_frame)


def assess(track: Track, world: World, first_frame: int = 0) -> Judgement:
    """`measure` of clips that have been followed."""
    shown = track.ink >= LEAST_INK  # [B, F]
    digits = (_read(track.crops) * shown[..., None]).mean(dim=1)
    colours = (_hues(track.colours) * shown[..., None]).mean(dim=1)
    motions = _motions(track.centres, world, first_frame) * shown.float().mean(dim=1, keepdim=True)
    return Judgement(digits, colours, motions)


def follow(video: Tensor) -> Track:
    """Find the digit of every frame of [B, F, 3, 32, 32]: whatever is brighter than the median of the frame."""
    pixels = video.nan_to_num(0, 0, 0).clamp(0, 1)
    background = pixels.flatten(-2).median(dim=-1).values  # [B, F, 3]
    above = pixels - background[..., None, None]
    luma = above.sum(dim=2)  # of the channels: what the codec keeps best
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
    """The 16x16 pixels around `centres` [B, F, 2] of [B, F, C, 32, 32]: [B, F, C, 16, 16]."""
    batch, frames, channels = video.shape[:3]
    where = torch.zeros(batch * frames, 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = DIGIT_SIZE / SIZE
    where[:, :, 2] = centres.flatten(0, 1) * (2 / SIZE)
    grid = F.affine_grid(where, [batch * frames, 1, DIGIT_SIZE, DIGIT_SIZE], align_corners=False)
    cut = F.grid_sample(video.flatten(0, 1), grid, mode="bilinear", align_corners=False)
    return cut.view(batch, frames, channels, DIGIT_SIZE, DIGIT_SIZE)


def _unit(pictures: Tensor) -> Tensor:
    """Pictures [N, ...], each scaled to unit norm; an empty one stays empty."""
    return F.normalize(pictures.flatten(1), dim=1, eps=1e-6).view(pictures.shape)


def _hues(colours: Tensor) -> Tensor:
    """Confidence in each colour for mean RGB [..., 3]: [..., 6]; the rest to 1 is "none of them"."""
    known = F.normalize(torch.tensor([RGB[name] for name in COLOURS]), dim=1)
    distance = (F.normalize(colours, dim=-1, eps=1e-6)[..., None, :] - known).norm(dim=-1)
    likely = torch.exp(-0.5 * (distance / 0.1) ** 2)  # the codec moves colours by 0.1; two are 0.5 apart
    return likely / (likely.sum(dim=-1, keepdim=True) + torch.exp(torch.tensor(-0.5 * (0.3 / 0.1) ** 2)))


def _motions(centres: Tensor, world: World, first_frame: int) -> Tensor:
    """Share of a track [B, F, 2] that each motion explains, 0 for one that does not move: [B, 4].

    The track may lie off its place by STRAY pixels; with a random phase, the phase that fits best counts.
    """
    frames = torch.arange(centres.shape[1])
    firsts = range(world.period) if world.random_phase else [first_frame]
    paths = torch.stack([torch.stack([path(m, first + frames, world) for m in MOTIONS]) for first in firsts]).float()
    apart = centres[:, None, None] - paths  # [B, phases, 4, F, 2]
    apart = apart - apart.mean(dim=-2, keepdim=True).clamp(-STRAY, STRAY)
    swing = (paths - paths.mean(dim=-2, keepdim=True)).square().sum(dim=(-2, -1))
    explained = 1 - apart.square().sum(dim=(-2, -1)) / swing.clamp(min=1e-6)
    return explained.clamp(min=0).amax(dim=1)


def _read(crops: Tensor) -> Tensor:
    """Confidence in each digit for crops [B, F, 16, 16]: [B, F, 10], scaled down for what is no handwriting at all."""
    flat = crops.flatten(0, 1)
    votes = torch.from_numpy(_reader()(_strokes(flat).numpy())).float()
    alike = (flat.flatten(1) @ samples().flatten(1).T).amax(dim=1, keepdim=True)
    handwritten = ((alike - 0.75) / 0.1).clamp(0, 1)  # cosine to the nearest: decoded digits over 0.9, noise to 0.8
    return ((HARDNESS * votes).softmax(dim=1) * handwritten).view(*crops.shape[:2], 10)


@cache
def samples() -> Tensor:
    """The judge's handwriting as it gets to see it, decoded and at PLACES places between pixels: [N, 16, 16]."""
    images, _ = handwriting(for_judge=True)
    shown = [Attributes(0, COLOURS[i % len(COLOURS)], "clockwise") for i in range(len(images))]
    video = render(images, shown, torch.zeros(len(images), dtype=torch.long), PLACES, World(period=4, amplitude=2.3))
    codec = DctCodec(torch.zeros(16), torch.ones(()))  # its blur does not depend on its normalisation
    return follow(codec.decode(codec.encode(video))).crops.flatten(0, 1)


@cache
def _reader() -> Callable[[np.ndarray], np.ndarray]:
    """Votes for each digit [N, 10] of strokes [N, 432]: a reader taught with `samples` and their variants."""
    from sklearn.svm import SVC  # a second to import: only who judges digits pays it

    dice = randomness.generator(0, "judge")
    learned = torch.cat([samples(), *(_bent(samples(), dice) for _ in range(VARIANTS))])
    digits = handwriting(for_judge=True)[1].repeat_interleave(PLACES).repeat(1 + VARIANTS)
    return SVC(C=10.0, gamma=4.0).fit(_strokes(learned).numpy(), digits.numpy()).decision_function


def _bent(crops: Tensor, dice: torch.Generator) -> Tensor:
    """Crops [N, 16, 16] turned, sheared, scaled and elastically bent a little: what 359 samples do not cover."""
    count = len(crops)
    dials = torch.rand(4, count, generator=dice) * 2 - 1
    turn, shear, wide, high = dials * torch.tensor([0.15, 0.1, 0.1, 0.1])[:, None]
    about = torch.zeros(count, 2, 3)
    about[:, 0, 0], about[:, 0, 1] = (1 + wide) * turn.cos(), shear - turn.sin()
    about[:, 1, 0], about[:, 1, 1] = turn.sin(), (1 + high) * turn.cos()
    grid = F.affine_grid(about, [count, 1, DIGIT_SIZE, DIGIT_SIZE], align_corners=False)
    pulls = 0.1 * torch.randn(count, 2, 3, 3, generator=dice)  # of nine points, in half widths
    pulls = pulls - pulls.mean(dim=(2, 3), keepdim=True)  # crops are centred, and stay it
    bend = F.interpolate(pulls, size=(DIGIT_SIZE, DIGIT_SIZE), mode="bicubic", align_corners=True)
    return _unit(F.grid_sample(crops[:, None], grid + bend.permute(0, 2, 3, 1), align_corners=False)[:, 0])


def _strokes(crops: Tensor) -> Tensor:
    """Where crops [N, 16, 16] rise in each of twelve directions, on a 6x6 raster: [N, 432], of unit norm."""
    return torch.cat([_strokes_of_few(few) for few in crops.split(AT_ONCE)])


def _strokes_of_few(crops: Tensor) -> Tensor:
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    smooth = F.conv2d(F.pad(crops[:, None], (2,) * 4), torch.outer(binomial, binomial)[None, None])  # [N, 1, 18, 18]
    right = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    angle = (torch.arange(12) * (math.pi / 6))[:, None, None]
    rises = (right * angle.cos() + down * angle.sin()).clamp(min=0)  # [N, 12, 16, 16]
    return F.normalize(F.adaptive_avg_pool2d(rises, 6).flatten(1), dim=1, eps=1e-6)
