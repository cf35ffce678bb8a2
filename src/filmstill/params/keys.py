"""Keys of params.yaml: a default and the sentence that explains it, which `profile` writes beside the value."""

from dataclasses import field
from typing import Any

SENTENCE = "sentence"  # in a field's metadata


def key(default: Any, sentence: str) -> Any:
    """A dataclass field of a section: its default, and what it means."""
    return field(default=default, metadata={SENTENCE: sentence})
