"""The small English of the digits world: attributes to sentence and back."""

from dataclasses import dataclass

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
MOTIONS = ("sways", "bobs", "clockwise", "anticlockwise")


@dataclass(frozen=True)
class Attributes:
    """What a clip of this world shows: a digit 0-9, one of COLOURS, one of MOTIONS."""

    digit: int
    colour: str
    motion: str
