"""The dimensions of digits-bench: one function each, from clips to one score per clip.

They have VBench's names and formulas but are measured by other means, so they are named digits-bench and never
compared with VBench. Where VBench runs a network (DINO, RAFT, AMT, GRiT, …), the digit itself is followed here:
`judge.follow` finds its centre in every frame, and comparing centred crops is motion compensation.

Source of names and formulas: VBench (arXiv:2311.17982), code of version 0.1.5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstill.params.world import World
from filmstill.worlds.digits import DIGIT_SIZE, SIZE
from filmstill.worlds.grammar import Attributes
from filmstill.worlds.judge import Track, assess, crop, follow

QUALITY = {  # weight in the quality score, as in VBench
    "subject_consistency": 1.0,
    "background_consistency": 1.0,
    "temporal_flickering": 1.0,
    "motion_smoothness": 1.0,
    "dynamic_degree": 0.5,
    "imaging_quality": 1.0,
}
SEMANTIC = ("object_class", "colour", "motion", "overall_consistency")
NAMES = (*QUALITY, *SEMANTIC)
MOVES = 6 * SIZE / 256  # pixels per frame above which a digit counts as moving: VBench's 6 at 256 pixels


@dataclass(frozen=True)
class TrackedClips:
    """Clips [B, F, 3, 32, 32] in [0, 1], the digit's `track`, and RGB `crops` [B, F, 3, 16, 16] around the digit."""

    video: Tensor
    track: Track
    crops: Tensor

    @classmethod
    def of(cls, video: Tensor) -> "TrackedClips":
        """Follow the digit of every clip."""
        track = follow(video)
        return cls(video, track, crop(video, track.centres))


def scores(
    clips: TrackedClips, attributes: list[Attributes], world: World, sharpness_of_real: float
) -> dict[str, Tensor]:
    """Raw score [B] per dimension; `attributes` are those that each clip's prompt names."""
    confidence = assess(clips.track, world).confidence(attributes)  # [B, 3]
    by_quality: dict[str, Callable[[TrackedClips], Tensor]] = {
        "subject_consistency": subject_consistency,
        "background_consistency": background_consistency,
        "temporal_flickering": temporal_flickering,
        "motion_smoothness": motion_smoothness,
        "dynamic_degree": dynamic_degree,
    }
    raw = {name: measure(clips) for name, measure in by_quality.items()}
    raw["imaging_quality"] = imaging_quality(clips, sharpness_of_real)
    raw |= {name: confidence[:, i] for i, name in enumerate(("object_class", "colour", "motion"))}
    raw["overall_consistency"] = overall_consistency(confidence)
    return raw


def subject_consistency(clips: TrackedClips) -> Tensor:
    """VBench's formula, with the centred RGB crop in place of DINO features."""
    return _consistency(clips.crops.flatten(2))


def background_consistency(clips: TrackedClips) -> Tensor:
    """VBench's formula, with the darkness of all pixels outside the digit's box in place of CLIP features."""
    outside = 1 - clips.video.mean(dim=2)  # a black background is a zero vector, without a cosine; its darkness is not
    return _consistency(torch.where(_box(clips.track.centres), 1.0, outside).flatten(2))


def temporal_flickering(clips: TrackedClips) -> Tensor:
    """1 - mean absolute difference of consecutive centred crops: VBench measures whole frames, but of still scenes."""
    return 1 - clips.crops.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))


def motion_smoothness(clips: TrackedClips) -> Tensor:
    """1 - error of odd frames rebuilt from their two neighbours: crop and centre are the mean of the neighbours'."""
    places = clips.track.centres / SIZE
    picture = _rebuilt(clips.crops).abs().mean(dim=(1, 2, 3, 4))
    return 1 - picture - _rebuilt(places).norm(dim=-1).mean(dim=1)


def dynamic_degree(clips: TrackedClips) -> Tensor:
    """1 if the digit moves by more than MOVES pixels in at least a quarter of the frames, else 0. VBench uses RAFT."""
    moves = clips.track.centres.diff(dim=1).norm(dim=-1) > MOVES  # [B, F - 1]
    return (moves.sum(dim=1) >= max(1, round(moves.shape[1] / 4))).float()


def imaging_quality(clips: TrackedClips, sharpness_of_real: float) -> Tensor:
    """Likeness of the digit's sharpness to real clips', reduced by noise outside its box: [0, 1]. VBench uses MUSIQ."""
    ratio = sharpness(clips) / sharpness_of_real
    likeness = torch.minimum(ratio, 1 / ratio.clamp(min=1e-6))
    outside = torch.where(_box(clips.track.centres), 0.0, clips.video.mean(dim=2))
    return likeness * (1 - outside.abs().mean(dim=(1, 2, 3)) * SIZE).clamp(min=0)


def overall_consistency(confidence: Tensor) -> Tensor:
    """Joint confidence in digit, colour and motion, from [B, 3]. VBench uses ViCLIP's cosine of video and prompt."""
    return confidence.prod(dim=1)


def sharpness(clips: TrackedClips) -> Tensor:
    """Mean absolute luma gradient of the centred crop, divided by its mean luma: [B]."""
    luma = clips.crops.mean(dim=2)
    gradient = luma.diff(dim=-1).abs().mean(dim=(1, 2, 3)) + luma.diff(dim=-2).abs().mean(dim=(1, 2, 3))
    return gradient / luma.mean(dim=(1, 2, 3)).clamp(min=1e-6)


def _consistency(features: Tensor) -> Tensor:
    """Mean over t >= 1 of (cos+(f_t, f_{t-1}) + cos+(f_t, f_0)) / 2 for features [B, F, D]."""
    before = F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1).clamp(min=0)
    first = F.cosine_similarity(features[:, 1:], features[:, :1], dim=-1).clamp(min=0)
    return ((before + first) / 2).mean(dim=1)


def _rebuilt(frames: Tensor) -> Tensor:
    """Odd frames of [B, F, …] minus the mean of their two even neighbours."""
    odd = frames[:, 1:-1:2]
    return odd - (frames[:, : 2 * odd.shape[1] : 2] + frames[:, 2 : 2 * odd.shape[1] + 1 : 2]) / 2


def _box(centres: Tensor) -> Tensor:
    """Whether a pixel is in the digit's box, widened by 3 pixels for the codec's ringing: [B, F, 32, 32]."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    inside = (axis - centres[..., None]).abs() <= DIGIT_SIZE / 2 + 3  # [B, F, 2, 32]
    return inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
