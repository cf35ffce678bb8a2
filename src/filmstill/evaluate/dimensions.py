"""The dimensions of symbols-bench: one function each, from clips to one score per clip.

They have VBench's names and formulas but are measured by other means, so they are named symbols-bench and never
compared with VBench. Where VBench runs a network (DINO, RAFT, AMT, GRiT, …), the symbol itself is followed here:
`judge.look_at` finds its place in every frame, and comparing crops around it is motion compensation. Semantic
dimensions grade what the judge only answers by yes and no.

Source of names and formulas: VBench (arXiv:2311.17982), code of version 0.1.5.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.params.world import World
from filmstill.worlds.grammar import COLOURS, SYMBOLS, Attributes
from filmstill.worlds.judge import NOISE_FLOOR, Frames, indices_of, paths
from filmstill.worlds.symbols import BOX, REACH, RGB, SIZE, glyph
from filmstill.worlds.templates import place_index, templates

MOVES = 6 * SIZE / 256  # pixels per frame above which a symbol counts as moving: VBench's 6 at 256 pixels


@dataclass(frozen=True)
class TrackedClips:
    """Clips as the judge sees them, and RGB `crops` [B, F, 3, 16, 16] around the symbol's `places` [B, F, 2]."""

    frames: Frames
    places: Tensor
    crops: Tensor

    @classmethod
    def of(cls, frames: Frames) -> "TrackedClips":
        """Follow the symbol of every clip."""
        places = frames.track()
        return cls(frames, places, _crops(frames.video, places))

    def ideals(self) -> Tensor:
        """The same crops of each frame's ideal, as the judge has it: [B, F, 3, 16, 16]."""
        symbol, colour, place = self.frames.symbol, self.frames.colour, place_index(self.places)
        pictures = templates().ideals(symbol.flatten(), place.flatten(), colour.flatten())
        return _crops(pictures.unflatten(0, symbol.shape), self.places)


def scores(clips: TrackedClips, attributes: list[Attributes], fidelity: Tensor, world: World) -> dict[str, Tensor]:
    """Raw score [B] per dimension.

    attributes: what each clip's prompt names; where it leaves the colour open, that score has no meaning. fidelity: in
    dB, as the judge measures it, [B].
    """
    symbol, colour, motion = torch.tensor([indices_of(each) for each in attributes]).unbind(dim=1)
    return {
        **{measure.__name__: measure(clips) for measure in MEASURES},
        "object_class": object_class(clips, symbol),
        "colour": colour_likeness(clips, colour),
        "motion": motion_likeness(clips, symbol, motion, world),
        "overall_consistency": fidelity,  # VBench: ViCLIP's cosine of video and prompt
    }


def subject_consistency(clips: TrackedClips) -> Tensor:
    """VBench's formula, with the RGB crop in place of DINO features."""
    return _consistency(clips.crops.flatten(2))


def background_consistency(clips: TrackedClips) -> Tensor:
    """VBench's formula, with the darkness of all pixels outside the symbol's box in place of CLIP features."""
    dark = 1 - clips.frames.video.mean(dim=2)  # a black background is a zero vector, without a cosine; darkness is not
    return _consistency(torch.where(_box(clips.places), 1.0, dark).flatten(2))


def temporal_flickering(clips: TrackedClips) -> Tensor:
    """1 - mean absolute difference of consecutive crops: VBench measures whole frames, but of still scenes."""
    return 1 - clips.crops.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))


def motion_smoothness(clips: TrackedClips) -> Tensor:
    """1 - error of odd frames rebuilt from their two neighbours: crop and place are the mean of the neighbours'."""
    places = clips.places / SIZE
    picture = _rebuilt(clips.crops).abs().mean(dim=(1, 2, 3, 4))
    return 1 - picture - _rebuilt(places).norm(dim=-1).mean(dim=1)


def dynamic_degree(clips: TrackedClips) -> Tensor:
    """1 if the symbol moves by more than MOVES pixels in at least a quarter of the frames, else 0. VBench uses RAFT."""
    moves = clips.places.diff(dim=1).norm(dim=-1) > MOVES  # [B, F - 1]
    return (moves.sum(dim=1) >= max(1, round(moves.shape[1] / 4))).float()


def aesthetic_quality(clips: TrackedClips) -> Tensor:
    """Mean PSNR in dB of each frame against the nearest drawn picture, whatever the prompt. VBench: LAION's predictor.

    That is the frame's best symbol in its place, in the nearest of the six colours, on black, before the codec.
    """
    ink = torch.stack([glyph(symbol) for symbol in SYMBOLS])[clips.frames.symbol]  # [B, F, 16, 16]
    rgb = torch.tensor(list(RGB.values()))
    product = torch.einsum("bfchw,bfhw->bfc", clips.crops, ink) @ rgb.T  # of the crop with the symbol in each colour
    size = ink.square().sum(dim=(2, 3))[..., None] * rgb.square().sum(dim=1)
    video = clips.frames.video
    error = (video.square().sum(dim=(2, 3, 4)) + (size - 2 * product).amin(dim=2)) / video[0, 0].numel()
    return (-10 * error.clamp(min=NOISE_FLOOR).log10()).mean(dim=1)


def imaging_quality(clips: TrackedClips) -> Tensor:
    """Likeness of each frame's sharpness to its ideal's, less noise outside the symbol's box: [0, 1]. VBench: MUSIQ."""
    ratio = sharpness(clips.crops) / sharpness(clips.ideals())
    likeness = torch.minimum(ratio, 1 / ratio.clamp(min=1e-6)).mean(dim=1)
    outside = torch.where(_box(clips.places), 0.0, clips.frames.video.mean(dim=2))
    return likeness * (1 - outside.abs().mean(dim=(1, 2, 3)) * SIZE).clamp(min=0)


def object_class(clips: TrackedClips, symbol: Tensor) -> Tensor:
    """Mean correlation of each frame's details with those of the symbol [B] named. VBench uses GRiT."""
    return clips.frames.details[torch.arange(len(symbol)), :, symbol].mean(dim=1)


def colour_likeness(clips: TrackedClips, colour: Tensor) -> Tensor:
    """1 - mean distance of each frame's unit RGB vector from that of the colour [B] named. VBench uses GRiT."""
    known = F.normalize(torch.tensor([RGB[name] for name in COLOURS]), dim=1)[colour]
    seen = F.normalize(clips.frames.rgb, dim=2, eps=1e-6)
    return 1 - (seen - known[:, None]).norm(dim=-1).mean(dim=1)


def motion_likeness(clips: TrackedClips, symbol: Tensor, motion: Tensor, world: World) -> Tensor:
    """1 - mean distance from the path of the motion [B] named at its best phase, in units of the picture's width.

    The place is that of the symbol [B] named: in a blurred clip another one may win, a pixel beside it.
    """
    places = clips.frames.places[torch.arange(len(symbol)), :, symbol].double()  # [B, F, 2]
    path = paths(places.shape[1], world)[motion]  # [B, period, F, 2]
    return 1 - (places[:, None] - path).norm(dim=-1).mean(dim=-1).amin(dim=1) / SIZE


def sharpness(crops: Tensor) -> Tensor:
    """Mean absolute luma gradient of pictures [..., 3, H, W] over their mean luma: [...]."""
    luma = crops.mean(dim=-3)
    gradient = luma.diff(dim=-1).abs().mean(dim=(-2, -1)) + luma.diff(dim=-2).abs().mean(dim=(-2, -1))
    return gradient / luma.mean(dim=(-2, -1)).clamp(min=1e-6)


def _crops(video: Tensor, places: Tensor) -> Tensor:
    """The boxes of video [B, F, 3, 32, 32] around whole-pixel places [B, F, 2]: [B, F, 3, 16, 16]."""
    corners = (places + REACH).long()
    columns, rows = (corners[..., axis, None] + torch.arange(BOX) for axis in (0, 1))
    batch, frame = (torch.arange(size) for size in places.shape[:2])
    at = batch[:, None, None, None], frame[:, None, None], rows[..., :, None], columns[..., None, :]
    return video.movedim(2, -1)[at].movedim(-1, 2)


def _consistency(features: Tensor) -> Tensor:
    """Mean over t >= 1 of (cos+(f_t, f_{t-1}) + cos+(f_t, f_0)) / 2 for features [B, F, D]."""
    before = F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1).clamp(min=0)
    first = F.cosine_similarity(features[:, 1:], features[:, :1], dim=-1).clamp(min=0)
    return ((before + first) / 2).mean(dim=1)


def _rebuilt(frames: Tensor) -> Tensor:
    """Odd frames of [B, F, …] minus the mean of their two even neighbours."""
    odd = frames[:, 1:-1:2]
    return odd - (frames[:, : 2 * odd.shape[1] : 2] + frames[:, 2 : 2 * odd.shape[1] + 1 : 2]) / 2


def _box(places: Tensor) -> Tensor:
    """Whether a pixel is in the symbol's box, widened by 3 pixels for the codec's ringing: [B, F, 32, 32]."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    inside = (axis - places[..., None]).abs() <= BOX / 2 + 3  # [B, F, 2, 32]
    return inside[:, :, 1, :, None] & inside[:, :, 0, None, :]


MEASURES = {  # of quality, with the weight of each in the quality score, as in VBench
    subject_consistency: 1.0,
    background_consistency: 1.0,
    temporal_flickering: 1.0,
    motion_smoothness: 1.0,
    dynamic_degree: 0.5,
    aesthetic_quality: 1.0,
    imaging_quality: 1.0,
}
QUALITY = {measure.__name__: weight for measure, weight in MEASURES.items()}
SEMANTIC = ("object_class", "colour", "motion", "overall_consistency")
NAMES = (*QUALITY, *SEMANTIC)
