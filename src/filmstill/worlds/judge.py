"""The judge of the symbols world's clips, as strict as the eye.

Every frame is compared with every symbol at every whole-pixel place, all seen through the codec, and then with its
ideal: the symbol that it shows, where it shows it, in the nearest colour (worlds/templates.py). A clip shows a symbol
if that symbol wins in every frame at correlations that a 3x3 blur fails, with no spot on it and nothing beside it, a
colour if it is the nearest in every frame and as bright as it should be, and a motion if every frame is in place at one
phase for the whole clip. An empty or noisy clip shows nothing, a frozen one no motion. Fidelity, the PSNR against the
drawn clip, before the codec, at its best phase, does not saturate.
"""

from dataclasses import dataclass, fields
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.params.world import World
from filmstill.worlds.grammar import ATTRIBUTES, MOTIONS, SYMBOLS, Attributes
from filmstill.worlds.symbols import path, render
from filmstill.worlds.templates import details_of, places, rgb_of_ideals, templates

MIN_CORRELATION = 0.93  # of a frame's luma with its symbol's; decoded real frames have at least 0.98
# Of the luma less its 3x3 mean: decoded real frames have at least 0.91, a 3x3 blur of them at most 0.72. The luma alone
# cannot tell: a blurred heart has 0.99, a sharp note 0.98.
MIN_DETAIL_CORRELATION = 0.75
# Limits of a frame against its ideal, which a decoded real frame equals. A frame that is drawn and not decoded has the
# codec's own loss: a colour distance of up to 0.21, a spot of up to 0.036, 0.24 beside it.
MAX_COLOUR_DISTANCE = 0.12  # between unit RGB vectors; the ideals of the two nearest colours are 0.37 apart
MAX_BRIGHTNESS_ERROR = 0.2  # relative to the ideal's brightness
MAX_SPOT = 0.035  # mean squared error of any 4x4 patch
MAX_BESIDE = 0.5  # squared error beside the symbol; nearly all right clips of trained networks have less
MAX_DISTANCE = 1.5  # pixels between a symbol and its place on the motion's path
NOISE_FLOOR = 1e-6  # mean squared error of a perfect clip: fidelity is at most 60 dB
FRAMES_AT_ONCE = 512  # whose correlations and errors, about 100 kB per frame, are in memory together
PATCH = 4  # pixels: side of the patches whose errors are measured
SUPPORT = 0.1  # brightness above which a pixel of the ideal, or one beside it, belongs to the symbol


@dataclass(frozen=True)
class Frames:
    """What each frame of B clips looks like.

    video: [B, F, 3, 32, 32] in [0, 1]. correlations: [B, F, 12] with each symbol at its best place, details: that of
    their details there, places: its (x, y) in pixels from the picture's centre, int [B, F, 12, 2]. rgb: colour of the
    best symbol, by least squares, [B, F, 3].

    A frame's ideal is its best symbol where it is, in the nearest of COLOURS, through the codec. All [B, F]: colour:
    index of that colour, int; colour_distance: from the ideal's rgb, both unit vectors; brightness: mean rgb relative
    to the ideal's; spot: largest mean squared error of a 4x4 patch; beside: squared error outside the symbol, over
    all its pixels and channels.
    """

    video: Tensor
    correlations: Tensor
    details: Tensor
    places: Tensor
    rgb: Tensor
    colour: Tensor
    colour_distance: Tensor
    brightness: Tensor
    spot: Tensor
    beside: Tensor

    def window(self, start: int, end: int) -> "Frames":
        """Frames [start, end) of every clip."""
        return Frames(*(getattr(self, field.name)[:, start:end] for field in fields(self)))

    @property
    def symbol(self) -> Tensor:
        """Index of each frame's best symbol, int [B, F]."""
        return self.correlations.argmax(dim=2)

    def track(self) -> Tensor:
        """Place (x, y) of each frame's best symbol, in pixels from the picture's centre: [B, F, 2]."""
        best = self.symbol[..., None, None].expand(-1, -1, 1, 2)
        return self.places.gather(2, best)[:, :, 0].double()


@dataclass(frozen=True)
class Judgement:
    """What B clips show.

    shown: indices into SYMBOLS, COLOURS and MOTIONS, int [B, 3]; -1: none in every frame. phase: frame of the motion at
    the clip's frame 0, int [B]; right: whether each attribute is what was asked, or is any colour where the prompt
    leaves the colour open, bool [B, 3]. fidelity: PSNR in dB against the drawn clip at its best phase, [B].
    """

    shown: Tensor
    phase: Tensor
    right: Tensor
    fidelity: Tensor

    @property
    def all_right(self) -> Tensor:
        """Whether all three attributes are right, bool [B]."""
        return self.right.all(dim=1)


def judge(video: Tensor, asked: list[Attributes], world: World) -> Judgement:
    """Judge clips [B, F, 3, 32, 32] in [0, 1]. A pixel that is not a number counts as black."""
    return judge_frames(look_at(video), asked, world)


@torch.no_grad()
def look_at(video: Tensor) -> Frames:
    """Compare every frame of clips [B, F, 3, 32, 32] with all symbols at all places."""
    video = video.nan_to_num(0, 0, 0).clamp(0, 1)
    compared = [_compare(chunk) for chunk in video.flatten(0, 1).split(FRAMES_AT_ONCE)]
    parts = {name: torch.cat([chunk[name] for chunk in compared]) for name in compared[0]}
    return Frames(video, **{name: part.unflatten(0, video.shape[:2]) for name, part in parts.items()})


def _compare(pictures: Tensor) -> dict[str, Tensor]:
    """The fields of Frames for pictures [N, 3, 32, 32]."""
    white = templates()
    luma = pictures.sum(dim=1)  # the background is black, so that any haze lowers the correlation
    flat = F.normalize(luma.flatten(1), dim=1, eps=1e-6)
    scores = (flat @ white.luma.flatten(0, 1).T).unflatten(1, (-1, len(places())))
    best, where = scores.max(dim=2)
    details = torch.einsum("nd,nsd->ns", details_of(luma), white.details[torch.arange(len(SYMBOLS)), where])
    symbol = best.argmax(dim=1)
    place = where.gather(1, symbol[:, None])[:, 0]
    found = {"correlations": best, "details": details, "places": places()[where]}
    return {**found, **_compare_with_ideals(pictures, symbol, place)}


def _compare_with_ideals(pictures: Tensor, symbol: Tensor, place: Tensor) -> dict[str, Tensor]:
    """The other fields, for pictures whose best symbol and its place have indices [N]."""
    rgb, named = templates().rgb(pictures, symbol, place), rgb_of_ideals()[symbol, place]  # [N, 3], [N, 6, 3]
    apart = (F.normalize(rgb, dim=1, eps=1e-6)[:, None] - F.normalize(named, dim=2)).norm(dim=2)
    distance, colour = apart.min(dim=1)
    brightness = rgb.mean(dim=1) / named[torch.arange(len(colour)), colour].mean(dim=1)
    ideals = templates().ideals(symbol, place, colour)
    error = (pictures - ideals).square().mean(dim=1)
    spot = F.avg_pool2d(error, PATCH, stride=1).flatten(1).amax(dim=1)
    outside = F.max_pool2d(ideals.amax(dim=1), 3, stride=1, padding=1) <= SUPPORT
    beside = 3 * (error * outside).sum(dim=(1, 2))
    return {
        "rgb": rgb,
        "colour": colour,
        "colour_distance": distance,
        "brightness": brightness,
        "spot": spot,
        "beside": beside,
    }


def judge_frames(frames: Frames, asked: list[Attributes], world: World) -> Judgement:
    """`judge` for clips that `look_at` has compared."""
    symbol, colour = _shown_symbol(frames), _shown_colour(frames)
    motion, phase = _shown_motion(frames.track(), asked, world)
    shown = torch.stack([symbol, colour, motion], dim=1)
    named = torch.tensor([indices_of(a) for a in asked])
    right = (shown >= 0) & ((named < 0) | (named == shown))
    return Judgement(shown, phase, right, _fidelity(frames, asked, world))


def indices_of(asked: Attributes) -> list[int]:
    """Indices into SYMBOLS, COLOURS and MOTIONS; -1 where the prompt leaves the colour open."""
    values = {name: getattr(asked, name) for name in ATTRIBUTES}
    return [ATTRIBUTES[name].index(value) if value else -1 for name, value in values.items()]


def _shown_symbol(frames: Frames) -> Tensor:
    """The symbol that wins in every frame of each clip, sharp, whole and alone, or -1: [B].

    The errors are those from a frame in the nearest colour, so they count only where that colour is right.
    """
    correlation, winner = frames.correlations.max(dim=2)
    detail = frames.details.gather(2, winner[..., None])[..., 0]
    marred = _coloured(frames) & ((frames.spot > MAX_SPOT) | (frames.beside > MAX_BESIDE))
    clear = (correlation >= MIN_CORRELATION) & (detail >= MIN_DETAIL_CORRELATION) & ~marred
    return torch.where((clear & (winner == winner[:, :1])).all(dim=1), winner[:, 0], -1)


def _shown_colour(frames: Frames) -> Tensor:
    """The colour that is the nearest in every frame of each clip, near enough and as bright as it is, or -1: [B]."""
    clear = _coloured(frames) & (frames.colour == frames.colour[:, :1])
    return torch.where(clear.all(dim=1), frames.colour[:, 0], -1)


def _coloured(frames: Frames) -> Tensor:
    """Whether each frame is as near to its ideal in colour and brightness as it must be: [B, F]."""
    near = frames.colour_distance <= MAX_COLOUR_DISTANCE
    return near & ((frames.brightness - 1).abs() <= MAX_BRIGHTNESS_ERROR)


def _shown_motion(track: Tensor, asked: list[Attributes], world: World) -> tuple[Tensor, Tensor]:
    """(motion, phase) of tracks [B, F, 2], both [B]: the nearest path, -1 if a frame is off it by MAX_DISTANCE.

    The phase of a clip that shows no motion is that of the nearest path of the motion asked for.
    """
    off = (track[:, None, None] - paths(track.shape[1], world)).norm(dim=-1).amax(dim=-1)  # [B, 4, period]
    distance, phases = off.min(dim=2)
    nearest = distance.argmin(dim=1)
    motion = torch.where(distance.amin(dim=1) <= MAX_DISTANCE, nearest, -1)
    wanted = torch.tensor([MOTIONS.index(a.motion) for a in asked])
    of = torch.where(motion < 0, wanted, nearest)
    return motion, phases.gather(1, of[:, None])[:, 0]


def _fidelity(frames: Frames, asked: list[Attributes], world: World) -> Tensor:
    """PSNR in dB of each clip against the nearest drawn clip that its prompt allows, at its best phase: [B]."""
    phases = torch.arange(world.period)[:, None] + torch.arange(frames.video.shape[1])  # [period, F]
    errors = []
    for video, wanted in zip(frames.video.flatten(2), asked, strict=True):
        values = ([named] if (named := getattr(wanted, name)) else ATTRIBUTES[name] for name in ATTRIBUTES)
        drawn = torch.stack([_one_period(Attributes(*each), world) for each in product(*values)])  # [N, period, D]
        apart = drawn.square().sum(dim=2)[..., None] - 2 * drawn @ video.T  # [N, period, F], plus each frame's square
        of_phase = apart.transpose(1, 2)[:, torch.arange(len(video)), phases % world.period].sum(dim=2)
        errors.append((of_phase.min() + video.square().sum()) / video.numel())
    return -10 * torch.stack(errors).clamp(min=NOISE_FLOOR).log10()


def _one_period(shown: Attributes, world: World) -> Tensor:
    """The drawn frames of one period, [period, 3 * 32 * 32]."""
    return _rendered(shown, world.amplitude, world.period)


@cache
def _rendered(shown: Attributes, amplitude: float, period: int) -> Tensor:
    return render([shown], period, World(frames=period, amplitude=amplitude, period=period))[0].flatten(1)


def paths(frames: int, world: World) -> Tensor:
    """Places of every motion at every phase, in pixels: [4, period, frames, 2]."""
    at = torch.arange(world.period)[:, None] + torch.arange(frames)
    one_period = torch.stack([path(motion, torch.arange(world.period), world) for motion in MOTIONS])
    return one_period[:, at % world.period].double()
