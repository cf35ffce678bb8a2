"""Image-to-video: clips that begin with a given picture, the first frame of the real clip of their prompt and seed.

The picture names symbol, colour and phase, which are those of the real clip; the prompt names the motion. A clip that
is all right may still have jumped to another phase after its first frame, which only the strict score sees.
"""

import pandas as pd

from filmstill.evaluate.bench import SampledClips
from filmstill.evaluate.intervals import mean_with_interval
from filmstill.evaluate.judged_clips import DecodedClips
from filmstill.evaluate.metrics import Metrics
from filmstill.evaluate.requests import PICTURE_ARM
from filmstill.models.codec import DctCodec
from filmstill.params.evaluate import Evaluate
from filmstill.params.world import World
from filmstill.worlds.judge import judge
from filmstill.worlds.symbols import real_clips

SAME = 0.5 / 255  # most that a pixel of the first frame may differ from the picture's: half a shade of an image file


def picture_metrics(
    samples: SampledClips, codec: DctCodec, world: World, params: Evaluate, seed: int
) -> dict[str, Metrics]:
    """Means of the scores of `score_pictures` as metrics of "picture"; {} where no such clips were made."""
    if samples.of_arm(PICTURE_ARM).empty:
        return {}
    scores = score_pictures(DecodedClips.of(samples, PICTURE_ARM, codec), codec, world, seed)
    of = {
        name: mean_with_interval(name, scores[name], scores["prompt_id"], params.resamples, seed)
        for name in ("all_attributes", "strict")
    }
    first = {"first_frame_kept": float(scores["first_frame_kept"].mean())}
    return {"picture": {"prompts": len(scores), **of["all_attributes"], **of["strict"], **first}}


def score_pictures(clips: DecodedClips, codec: DctCodec, world: World, seed: int) -> pd.DataFrame:
    """One row per clip: prompt_id and three scores, 0 or 1. A failed clip scores 0.

    all_attributes: all is right. strict: and in the phase of the picture. first_frame_kept: the first frame is the
    picture, seen through the codec.
    """
    drawn = real_clips(clips.asked, world, clips.video.shape[1], seed, clips.rows["seed"].tolist())
    pictures = codec.decode(codec.encode(drawn))
    judgement, phase = judge(clips.video, clips.asked, world), judge(pictures, clips.asked, world).phase
    kept = (clips.video[:, 0] - pictures[:, 0]).abs().amax(dim=(1, 2, 3)) <= SAME
    right = clips.table(judgement)["all_attributes"]
    return pd.DataFrame(
        {
            "prompt_id": clips.rows["prompt_id"].to_numpy(),
            "all_attributes": right,
            "strict": right * (judgement.phase == phase).numpy(),
            "first_frame_kept": kept.numpy() & ~clips.failed,
        }
    )
