"""The dimensions of digits-bench: one function each, clips and what was asked of them to a score a clip.

They fill VBench's slots with what can honestly be measured in this world, so they are named digits-bench and never
compared with VBench. Where VBench asks a network (DINO, RAFT, AMT, GRiT, …), the followed digit answers here:
`judge.follow` finds its centre in every frame, and comparing centred crops is motion compensation.

Source of slots and formulas: VBench (arXiv:2311.17982), code of version 0.1.5.
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

QUALITY = {  # weight in the quality score, as VBench weighs them
    "subject_consistency": 1.0,
    "background_consistency": 1.0,
    "temporal_flickering": 1.0,
    "motion_smoothness": 1.0,
    "dynamic_degree": 0.5,
    "imaging_quality": 1.0,
}
SEMANTIC = ("object_class", "colour", "motion", "overall_consistency")
NAMES = (*QUALITY, *SEMANTIC)
MOVES = 6 * SIZE / 256  # pixels a frame that count as moving: VBench's 6 at 256 pixels


@dataclass(frozen=True)
class Clips:
    """Clips [B, F, 3, 32, 32] in [0, 1], followed once: `track`, and RGB `crops` [B, F, 3, 16, 16] round the digit."""

    video: Tensor
    track: Track
    crops: Tensor

    @classmethod
    def of(cls, video: Tensor) -> "Clips":
        track = follow(video)
        return cls(video, track, crop(video, track.centres))


def scores(clips: Clips, asked: list[Attributes], world: World, sharpness_of_real: float) -> dict[str, Tensor]:
    """Every dimension's raw score [B] by name."""
    confidence = assess(clips.track, world).confidence(asked)  # [B, 3]
    by_quality: dict[str, Callable[[Clips], Tensor]] = {
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


def subject_consistency(clips: Clips) -> Tensor:
    """VBench's formula on the centred crop, its colour included, in place of DINO features."""
    return _consistency(clips.crops.flatten(2))


def background_consistency(clips: Clips) -> Tensor:
    """VBench's formula on how dark everything outside the digit's box is, in place of CLIP features."""
    outside = 1 - clips.video.mean(dim=2)  # a black background has no direction; its darkness has
    return _consistency(torch.where(_box(clips.track.centres), 1.0, outside).flatten(2))


def temporal_flickering(clips: Clips) -> Tensor:
    """1 - mean absolute difference of consecutive frames, here of centred crops: VBench asks it of still scenes."""
    return 1 - clips.crops.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))


def motion_smoothness(clips: Clips) -> Tensor:
    """1 - error of odd frames rebuilt from their neighbours: the crop by their mean, the place by their midpoint."""
    places = clips.track.centres / SIZE
    picture = _rebuilt(clips.crops).abs().mean(dim=(1, 2, 3, 4))
    return 1 - picture - _rebuilt(places).norm(dim=-1).mean(dim=1)


def dynamic_degree(clips: Clips) -> Tensor:
    """1 if at least a quarter of consecutive frames move by more than MOVES pixels, the path for RAFT's flow."""
    moves = clips.track.centres.diff(dim=1).norm(dim=-1) > MOVES  # [B, F - 1]
    return (moves.sum(dim=1) >= max(1, round(moves.shape[1] / 4))).float()


def imaging_quality(clips: Clips, sharpness_of_real: float) -> Tensor:
    """How near the digit's sharpness is to real clips', less the noise outside it; MUSIQ's slot, in [0, 1]."""
    ratio = sharpness(clips) / sharpness_of_real
    likeness = torch.minimum(ratio, 1 / ratio.clamp(min=1e-6))
    outside = torch.where(_box(clips.track.centres), 0.0, clips.video.mean(dim=2))
    return likeness * (1 - outside.abs().mean(dim=(1, 2, 3)) * SIZE).clamp(min=0)


def overall_consistency(confidence: Tensor) -> Tensor:
    """Joint confidence in digit, colour and motion [B, 3]: the slot of ViCLIP's video-prompt cosine."""
    return confidence.prod(dim=1)


def sharpness(clips: Clips) -> Tensor:
    """Mean absolute luma gradient of the centred crop over its mean luma, [B]."""
    luma = clips.crops.mean(dim=2)
    gradient = luma.diff(dim=-1).abs().mean(dim=(1, 2, 3)) + luma.diff(dim=-2).abs().mean(dim=(1, 2, 3))
    return gradient / luma.mean(dim=(1, 2, 3)).clamp(min=1e-6)


def _consistency(features: Tensor) -> Tensor:
    """Mean over t >= 1 of (cos+(f_t, f_{t-1}) + cos+(f_t, f_0)) / 2 for features [B, F, D]."""
    before = F.cosine_similarity(features[:, 1:], features[:, :-1], dim=-1).clamp(min=0)
    first = F.cosine_similarity(features[:, 1:], features[:, :1], dim=-1).clamp(min=0)
    return ((before + first) / 2).mean(dim=1)


def _rebuilt(frames: Tensor) -> Tensor:
    """Odd frames of [B, F, …] less the mean of their two even neighbours."""
    odd = frames[:, 1:-1:2]
    return odd - (frames[:, : 2 * odd.shape[1] : 2] + frames[:, 2 : 2 * odd.shape[1] + 1 : 2]) / 2


def _box(centres: Tensor) -> Tensor:
    """Whether a pixel lies in the digit's box, widened by a pixel for the codec's ringing: [B, F, 32, 32]."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    inside = (axis - centres[..., None]).abs() <= DIGIT_SIZE / 2 + 3  # [B, F, 2, 32]
    return inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
