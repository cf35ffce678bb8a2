"""Keys of params.yaml: a default, the sentence that explains it, and the interval that a number must be in."""

from dataclasses import dataclass, field, fields
from typing import Any

from filmstill.errors import require

SENTENCE, INTERVAL = "sentence", "interval"  # in a field's metadata


@dataclass(frozen=True)
class Interval:
    """An interval in the usual notation: [ and ] include the bound, ( and ) do not."""

    notation: str  # such as "(0, 1]"

    def __contains__(self, number: float) -> bool:
        low, high = map(float, self.notation[1:-1].split(","))
        above = number > low if self.notation[0] == "(" else number >= low
        return above and (number < high if self.notation[-1] == ")" else number <= high)


def key(default: Any, sentence: str, interval: str | None = None) -> Any:
    """A dataclass field of a section: its default, what it means, and for a number the interval that it is in.

    The sentence is written beside the value by `profile`. interval: its upper bound is one that a machine can meet.
    """
    metadata = {SENTENCE: sentence, **({INTERVAL: Interval(interval)} if interval else {})}
    return field(default=default, metadata=metadata)


def check_intervals(section: Any) -> None:
    """Raise FilmstillError for the first number of a section outside its key's interval. None is allowed as a value
    where the type of the key allows it."""
    for each in fields(section):
        interval, value = each.metadata.get(INTERVAL), getattr(section, each.name)
        if interval is not None and value is not None:
            optional = "null or " if each.type in (int | None, float | None) else ""
            kind = "an integer" if each.type in (int, int | None) else "a number"
            require(value in interval, each.name, value, f"{optional}{kind} in {interval.notation}")
