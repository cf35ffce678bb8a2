"""Clips that begin with a picture: the strict score keeps its phase, all right alone does not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from filmstill.evaluate.given_pictures import score_pictures
from filmstill.evaluate.judged_clips import DecodedClips
from filmstill.params.world import World
from filmstill.worlds.grammar import COLOURS, MOTIONS, SYMBOLS, Attributes
from filmstill.worlds.symbols import real_clips, render
from symbols_samples import CODEC, rows_of

WORLD, ANY_PHASE = World(), World(any_phase=True)
ASKED = [Attributes(symbol, COLOURS[i % 6], MOTIONS[i % 4]) for i, symbol in enumerate(SYMBOLS[:8])]
SEEDS = [0] * len(ASKED)
ROWS = rows_of("student_picture", ASKED, ["main"] * len(ASKED), SEEDS)


def scored(video: Tensor, world: World = WORLD, failed: tuple[int, ...] = ()) -> pd.DataFrame:
    """Scores of clips that begin with the picture, whatever they show later."""
    clips = torch.cat([real_clips(ASKED, world, 1, 0, SEEDS), video[:, 1:]], dim=1)
    decoded = CODEC.decode(CODEC.encode(clips))
    return score_pictures(
        DecodedClips(ROWS, decoded, ASKED, np.isin(range(len(ASKED)), failed)), CODEC, world, seed=0
    ).drop(columns="prompt_id")


def test_the_real_clip_is_right_whatever_its_phase():
    for world in (WORLD, ANY_PHASE):
        assert (scored(real_clips(ASKED, world, 12, 0, SEEDS), world) == 1).all(axis=None)


def test_a_clip_of_another_phase_is_not_strictly_right():
    """Not even one that its first frame was drawn over: it is right in the other phase."""
    other = CODEC.decode(CODEC.encode(render(ASKED, 12, WORLD, first_frame=1)))
    found = score_pictures(DecodedClips(ROWS, other, ASKED, np.zeros(8, dtype=bool)), CODEC, WORLD, seed=0)
    assert (found["all_attributes"] == 1).all() and (found["strict"] == 0).all()
    assert (found["first_frame_kept"] == 0).all()
    jumped = scored(render(ASKED, 12, WORLD, first_frame=4))
    assert (jumped["strict"] == 0).all() and (jumped["first_frame_kept"] == 1).all()


def test_the_pictures_own_phase_counts_not_the_worlds_first():
    found = scored(render(ASKED, 12, ANY_PHASE), ANY_PHASE)
    drawn = real_clips(ASKED, ANY_PHASE, 12, 0, SEEDS)
    at_phase_0 = [torch.equal(clip, first) for clip, first in zip(drawn, render(ASKED, 12, WORLD), strict=True)]
    assert found["strict"].tolist() == [float(each) for each in at_phase_0] and not all(at_phase_0)


def test_another_colour_or_motion_after_the_picture_is_wrong():
    recoloured = [replace(each, colour=COLOURS[(i + 1) % 6]) for i, each in enumerate(ASKED)]
    moved = [replace(each, motion=MOTIONS[(i + 2) % 4]) for i, each in enumerate(ASKED)]
    for shown in (recoloured, moved):
        found = scored(render(shown, 12, WORLD))
        assert (found[["all_attributes", "strict"]] == 0).all(axis=None) and (found["first_frame_kept"] == 1).all()


def test_a_failed_clip_is_wrong_in_everything():
    found = scored(render(ASKED, 12, WORLD), failed=(2,))
    assert (found.loc[2] == 0).all() and (found.drop(index=2) == 1).all(axis=None)
