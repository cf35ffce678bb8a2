"""The judge of the symbols world's clips, as strict as the eye.

Every frame is compared with every symbol at every whole-pixel place, all seen through the codec. A clip shows a symbol
if that symbol wins in every frame at correlations that a 3x3 blur fails, a colour if it is the nearest in every frame
and as bright as it should be, and a motion if every frame is in place at one phase for the whole clip. An empty or
noisy clip shows nothing, a frozen one no motion. Fidelity, the PSNR against the ideal clip at its best phase, does not
saturate.
"""

from dataclasses import dataclass, fields
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.models.codec import DctCodec
from filmstill.params.world import World
from filmstill.worlds.grammar import ATTRIBUTES, COLOURS, MOTIONS, SYMBOLS, Attributes
from filmstill.worlds.symbols import REACH, RGB, glyph, path, placed, render

MIN_CORRELATION = 0.93  # of a frame's luma with its symbol's; decoded real frames have at least 0.98
# Of the luma less its 3x3 mean: decoded real frames have at least 0.91, a 3x3 blur of them at most 0.72. The luma alone
# cannot tell: a blurred heart has 0.99, a sharp note 0.98.
MIN_DETAIL_CORRELATION = 0.75
MAX_COLOUR_DISTANCE = 0.25  # between unit RGB vectors: half of what parts the two nearest; the codec moves one by 0.2
MAX_BRIGHTNESS_ERROR = 0.3  # of a frame's brightness, relative to the colour's
MAX_DISTANCE = 1.5  # pixels between a symbol and its place on the motion's path
NOISE_FLOOR = 1e-6  # mean squared error of a perfect clip: fidelity is at most 60 dB
FRAMES_AT_ONCE = 512  # whose correlations, 14 kB per frame, are in memory together

ROW = range(-REACH, REACH + 1)


@dataclass(frozen=True)
class Frames:
    """What each frame of B clips looks like.

    video: [B, F, 3, 32, 32] in [0, 1]. correlations: [B, F, 12] with each symbol at its best place, details: that of
    their details there, places: its (x, y) in pixels from the picture's centre, int [B, F, 12, 2]. rgb: colour of the
    best symbol, by least squares, [B, F, 3].
    """

    video: Tensor
    correlations: Tensor
    details: Tensor
    places: Tensor
    rgb: Tensor

    def window(self, start: int, end: int) -> "Frames":
        """Frames [start, end) of every clip."""
        return Frames(*(getattr(self, field.name)[:, start:end] for field in fields(self)))

    def track(self) -> Tensor:
        """Place (x, y) of each frame's best symbol, in pixels from the picture's centre: [B, F, 2]."""
        best = self.correlations.argmax(dim=2)[..., None, None].expand(-1, -1, 1, 2)
        return self.places.gather(2, best)[:, :, 0].double()


@dataclass(frozen=True)
class Judgement:
    """What B clips show.

    shown: indices into SYMBOLS, COLOURS and MOTIONS, int [B, 3]; -1: none in every frame. phase: frame of the motion at
    the clip's frame 0, int [B]; right: whether each attribute is what was asked, or is any colour where the prompt
    leaves the colour open, bool [B, 3]. fidelity: PSNR in dB against the ideal clip at its best phase, [B].
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
    parts = (torch.cat(part).unflatten(0, video.shape[:2]) for part in zip(*compared, strict=True))
    return Frames(video, *parts)


def _compare(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(correlations [N, 12], those of details [N, 12], places [N, 12, 2], rgb [N, 3]) of pictures [N, 3, 32, 32]."""
    templates = _templates()
    luma = pictures.sum(dim=1)  # the background is black, so that any haze lowers the correlation
    flat = F.normalize(luma.flatten(1), dim=1, eps=1e-6)
    scores = (flat @ templates.luma.flatten(0, 1).T).unflatten(1, (-1, len(_places())))
    best, where = scores.max(dim=2)
    details = torch.einsum("nd,nsd->ns", _details(luma), templates.details[torch.arange(len(SYMBOLS)), where])
    winner, rows = best.argmax(dim=1), torch.arange(len(pictures))
    found = winner, where[rows, winner]
    rgb = torch.einsum("ncd,nd->nc", pictures.flatten(2), templates.luma[found]) / templates.size[found][:, None]
    return best, details, _places()[where], rgb


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
    """The symbol that wins in every frame of each clip sharp and clear, or -1: [B]."""
    correlation, winner = frames.correlations.max(dim=2)
    detail = frames.details.gather(2, winner[..., None])[..., 0]
    clear = (winner == winner[:, :1]) & (correlation >= MIN_CORRELATION) & (detail >= MIN_DETAIL_CORRELATION)
    return torch.where(clear.all(dim=1), winner[:, 0], -1)


def _shown_colour(frames: Frames) -> Tensor:
    """The colour that is the nearest in every frame of each clip, near enough and as bright as it is, or -1: [B]."""
    rgb = torch.tensor([RGB[name] for name in COLOURS])
    known = F.normalize(rgb, dim=1)
    distance, nearest = (F.normalize(frames.rgb, dim=2, eps=1e-6)[:, :, None] - known).norm(dim=-1).min(dim=2)
    dark = (frames.rgb.mean(dim=2) / rgb.mean(dim=1)[nearest] - 1).abs() > MAX_BRIGHTNESS_ERROR
    clear = (nearest == nearest[:, :1]) & (distance <= MAX_COLOUR_DISTANCE) & ~dark
    return torch.where(clear.all(dim=1), nearest[:, 0], -1)


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
    """PSNR in dB of each clip against the nearest ideal clip that its prompt allows, at its best phase: [B]."""
    phases = torch.arange(world.period)[:, None] + torch.arange(frames.video.shape[1])  # [period, F]
    errors = []
    for video, wanted in zip(frames.video.flatten(2), asked, strict=True):
        values = ([named] if (named := getattr(wanted, name)) else ATTRIBUTES[name] for name in ATTRIBUTES)
        ideals = torch.stack([_one_period(Attributes(*each), world) for each in product(*values)])  # [N, period, D]
        apart = ideals.square().sum(dim=2)[..., None] - 2 * ideals @ video.T  # [N, period, F], plus each frame's square
        of_phase = apart.transpose(1, 2)[:, torch.arange(len(video)), phases % world.period].sum(dim=2)
        errors.append((of_phase.min() + video.square().sum()) / video.numel())
    return -10 * torch.stack(errors).clamp(min=NOISE_FLOOR).log10()


def _one_period(shown: Attributes, world: World) -> Tensor:
    """The ideal frames of one period, [period, 3 * 32 * 32]."""
    return _rendered(shown, world.amplitude, world.period)


@cache
def _rendered(shown: Attributes, amplitude: float, period: int) -> Tensor:
    return render([shown], period, World(frames=period, amplitude=amplitude, period=period))[0].flatten(1)


def paths(frames: int, world: World) -> Tensor:
    """Places of every motion at every phase, in pixels: [4, period, frames, 2]."""
    at = torch.arange(world.period)[:, None] + torch.arange(frames)
    one_period = torch.stack([path(motion, torch.arange(world.period), world) for motion in MOTIONS])
    return one_period[:, at % world.period].double()


@cache
def _places() -> Tensor:
    """The whole-pixel places of a template, (x, y) from the picture's centre: int [289, 2]."""
    return torch.tensor(list(product(ROW, ROW)))


@dataclass(frozen=True)
class Templates:
    """White symbols at every place, seen through the codec: luma and details as unit vectors, and the size of the luma.

    luma, details: [12, 289, 1024]; size: [12, 289].
    """

    luma: Tensor
    details: Tensor
    size: Tensor


@cache
def _templates() -> Templates:
    codec = DctCodec(torch.zeros(16), torch.ones(()))  # the codec's blur does not depend on its normalisation
    inks = torch.stack([placed(glyph(symbol), x, y) for symbol in SYMBOLS for x, y in _places().tolist()])
    white = codec.decode(codec.encode(inks[:, None, None].expand(-1, 1, 3, -1, -1)))[:, 0].mean(dim=1)  # [N, 32, 32]
    flat = white.flatten(1)
    parts = (F.normalize(flat, dim=1), _details(white), flat.norm(dim=1))
    return Templates(*(part.unflatten(0, (len(SYMBOLS), -1)) for part in parts))


def _details(luma: Tensor) -> Tensor:
    """Frames [N, 32, 32] less the mean of each pixel's 3x3 neighbours, as unit vectors [N, 1024]."""
    return F.normalize((luma - F.avg_pool2d(luma, 3, stride=1, padding=1)).flatten(1), dim=1, eps=1e-6)
