"""Decoded clips of the symbols world under the judge."""

import torch
from torch import Tensor

from filmstill.models.codec import DctCodec
from filmstill.params.world import World
from filmstill.worlds.grammar import ATTRIBUTES, COMBINATIONS, Attributes
from filmstill.worlds.judge import Judgement, judge

WORLD = World()
CODEC = DctCodec(torch.zeros(16), torch.ones(()))
EVERYTHING = list(COMBINATIONS)
SOME = EVERYTHING[::5]  # every symbol, colour and motion
RIGHT, WRONG = [True, True, True], [False, False, False]


def decoded(video: Tensor) -> Tensor:
    return CODEC.decode(CODEC.encode(video))


def others(asked: list[Attributes]) -> list[Attributes]:
    """Attributes of which each differs from the one that is asked."""

    def following(values: tuple[str, ...], value: str | None) -> str:
        return values[(values.index(str(value)) + 1) % len(values)]

    return [Attributes(*(following(values, getattr(a, name)) for name, values in ATTRIBUTES.items())) for a in asked]


def judged(video: Tensor, asked: list[Attributes] = SOME) -> Judgement:
    return judge(video, asked, WORLD)


def assert_each(judgement: Judgement, right: list[bool]) -> None:
    """Every clip's symbol, colour and motion are right or wrong as stated."""
    assert judgement.right.float().mean(dim=0).tolist() == [float(each) for each in right]
