"""Train or eval, by the prompt alone: adding rows moves nobody."""

import hashlib

from filmstill.prompts.clean import key


def is_eval(prompt: str, share: float) -> bool:
    """Whether this cleaned prompt belongs to the `share` of prompts kept for evaluation."""
    digest = hashlib.sha256(key(prompt).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
